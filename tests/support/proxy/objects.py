"""Services and EndpointSlices as YAML, in a few words."""

from __future__ import annotations


def service(name: str, address: str, more: str = "", ports: str = "{name: tcp, port: 80}") -> str:
    """more: further fields of its spec."""
    spec = ", ".join([f'clusterIP: "{address}"', *([more] if more else []), f"ports: [{ports}]"])
    return f"---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{{spec}}}\n"


def slice_of(
    name: str,
    *addresses: str,
    target: int = 8080,
    ports: str = "",
    node: str = "",
    extra: dict[int, str] | None = None,
) -> str:
    """The IPv4 slice of a Service. extra: further fields of endpoints, by their number: N - 1 of 10.1.0.N."""
    found = []
    for at, address in enumerate(addresses):
        number = int(address.rpartition(".")[2]) - 1 if address.startswith("10.1.0.") else at
        fields = [f"addresses: [{address}]"]
        fields += [f"nodeName: {node}"] if node else []
        fields += [extra[number]] if extra and number in extra else []
        found.append(f"{{{', '.join(fields)}}}")
    return (
        f"---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}-1, labels: "
        f"{{kubernetes.io/service-name: {name}}}}}\naddressType: IPv4\n"
        f"ports: [{ports or f'{{name: tcp, port: {target}}}'}]\nendpoints: [{', '.join(found)}]\n"
    )
