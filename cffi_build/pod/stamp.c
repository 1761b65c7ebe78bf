/* A time as the log has it: 2026-11-27T00:00:00.000000000Z, in UTC, as all of STAMP bytes. Pure. */
#include "pod.h"

static void digits(char *to, u64 v, int n)
{
	while (n--) {
		to[n] = (char)('0' + v % 10);
		v /= 10;
	}
}

/* The day count's civil date is Howard Hinnant's days-to-civil: eras of 400 years that begin in March. */
void stamp(char *to, u64 ns)
{
	const u64 seconds = ns / 1000000000, days = seconds / 86400 + 719468, second = seconds % 86400;
	const u64 era = days / 146097, day = days % 146097;
	const u64 year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
	const u64 in_year = day - (365 * year + year / 4 - year / 100), shifted = (5 * in_year + 2) / 153;
	const u64 month = shifted < 10 ? shifted + 3 : shifted - 9;
	digits(to, year + era * 400 + (month <= 2), 4);
	to[4] = to[7] = '-';
	digits(to + 5, month, 2);
	digits(to + 8, in_year - (153 * shifted + 2) / 5 + 1, 2);
	to[10] = 'T';
	to[13] = to[16] = ':';
	digits(to + 11, second / 3600, 2);
	digits(to + 14, second / 60 % 60, 2);
	digits(to + 17, second % 60, 2);
	to[19] = '.';
	digits(to + 20, ns % 1000000000, 9);
	to[29] = 'Z';
}
