/* Runs a program under what otus.service's sandbox asks of seccomp:
 *
 *     unit_sandbox PROGRAM ARGUMENT...
 *
 * ALLOWED and FAMILIES, written by the test from the unit, are the rows of its
 * SystemCallFilter and RestrictAddressFamilies; memory is never writable and executable
 * (MemoryDenyWriteExecute). What is not allowed fails with EPERM, as the unit says. */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#define LOAD(member) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, member))
#define RETURN(what) BPF_STMT(BPF_RET | BPF_K, (what))
#define REFUSE RETURN(SECCOMP_RET_ERRNO | EPERM)
/* Skips `skip` instructions unless the loaded word is `value`. */
#define UNLESS(value, skip) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (value), 0, (skip))
#define ALLOW(number) UNLESS((number), 1), RETURN(SECCOMP_RET_ALLOW)
#define UNLESS_ALL_OF(bits, skip)                                                                  \
    BPF_STMT(BPF_ALU | BPF_AND | BPF_K, (bits)), UNLESS((bits), (skip))

int main(int argc, char **argv)
{
    static struct sock_filter program[] = {
        LOAD(nr),
        /* socket: its family is one of the unit's. */
        UNLESS(SYS_socket, 2 * NUM_FAMILIES + 2),
        LOAD(args[0]),
#define FAMILY(number) UNLESS((number), 1), RETURN(SECCOMP_RET_ALLOW),
        FAMILIES REFUSE,
        UNLESS(SYS_mmap, 4),
        LOAD(args[2]),
        UNLESS_ALL_OF(PROT_WRITE | PROT_EXEC, 1),
        REFUSE,
        LOAD(nr),
        UNLESS(SYS_mprotect, 4),
        LOAD(args[2]),
        UNLESS_ALL_OF(PROT_EXEC, 1),
        REFUSE,
        LOAD(nr),
#define CALL(number) ALLOW(number),
#include "allowed.h"
        REFUSE,
    };
    struct sock_fprog filter = {sizeof program / sizeof program[0], program};
    if (argc < 2 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0) {
        perror("unit_sandbox");
        return 125;
    }
    execvp(argv[1], argv + 1);
    perror(argv[1]);
    return 127;
}
