"""The cluster's DNS: what is answered is planned here, and answered by pyrun-dns, a program in C (cffi_build/dns)."""
