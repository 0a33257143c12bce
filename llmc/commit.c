/* commit.c: the git commit that this program was built from, as the Makefile finds it; "" where nobody knows. */
extern const char build_commit[];

#ifndef COMMIT
#define COMMIT ""
#endif
const char build_commit[] = COMMIT;
