/* Runs an encoded plan as the Python module and the launcher do, but under ASan and UBSan:
 *
 *   run-plan PLAN [--pid N] [--held DIRECTORY]... [--undo] [--no-wait]
 *
 * --pid: what PID_MARK stands for. --held: for the first slots, in their order. --undo: give up at the first YIELD; else go on. --no-wait: leave what still runs. Afterwards one line of
 * numbers (see the printf below), which also tells whether descriptors stayed open, then what a step said. Exits 0 unless it could not run.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include "../executor/px.h"
#include "options.h"

/* Open descriptors but for the init's image, which one process keeps for all its containers. */
static int count_fds(void)
{
	char path[300], target[300];
	int count = 0;
	DIR *d = opendir("/proc/self/fd");
	for (struct dirent *e; d && (e = readdir(d));) {
		snprintf(path, sizeof path, "/proc/self/fd/%s", e->d_name);
		ssize_t n = readlink(path, target, sizeof target - 1);
		target[n > 0 ? n : 0] = 0;
		count += n > 0 && !strstr(target, "pyrun-init");
	}
	closedir(d);
	return count;
}

static char *read_plan(const char *path, size_t *size)
{
	struct stat st;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return NULL;
	*size = (size_t)st.st_size;
	char *plan = malloc(*size ? *size : 1); /* no larger than the plan, so that reading behind its end is seen */
	if (plan && read(fd, plan, *size) != (ssize_t)*size)
		abort();
	close(fd);
	return plan;
}

int main(int argc, char **argv)
{
	static struct px_result out;
	size_t size;
	int err = 0, pid = 0, undo = 0, wait_all = 1, yields = 0, held = 0;
	for (int i = 2; i < argc; i++) {
		if (!strcmp(argv[i], "--pid") && i + 1 < argc)
			pid = atoi(argv[++i]);
		undo |= !strcmp(argv[i], "--undo");
		wait_all &= strcmp(argv[i], "--no-wait") != 0;
	}
	char *plan = argc > 1 ? read_plan(argv[1], &size) : NULL;
	if (!plan)
		return 2;
	int before = count_fds();
	px_run_t *run = px_new(plan, size, &err);
	free(plan);
	if (!run) {
		printf("refused %d\n", err);
		return 3;
	}
	if (pid)
		px_set_pid(run, pid);
	for (int i = 2; i + 1 < argc; i++)
		if (!strcmp(argv[i], "--held")) {
			int fd = open(argv[i + 1], O_RDONLY | O_CLOEXEC);
			if (fd < 0 || px_set_slot(run, (unsigned)held++, fd))
				return 2;
			close(fd);
		}
	while (px_run(run, &out) == 0 && out.status == 2) {
		yields++;
		if (undo) {
			px_undo(run, &out);
			break;
		}
	}
	unsigned long long took = px_took(run, out.step);
	px_free(run);
	while (wait_all && wait(NULL) > 0)
		;
	fflush(stdout);
	printf("\nresult %d %u %u %u %d %d %d %d %u %d %d %d %u\n", out.status, out.lane, out.step, out.substep, out.err, out.pid, out.child_status,
	       out.undo_err, out.undo_step, count_fds() - before, yields, took > 0, out.text_len);
	fwrite(out.text, 1, out.text_len, stdout);
	return 0;
}
