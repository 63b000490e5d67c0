/* SPDX-License-Identifier: BSD-3-Clause */
#include "cli/interrupt.h"

#include <errno.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "base/error.h"

int interrupt_begin(struct interrupt *interrupt, GError **err)
{
    sigset_t wanted;
    sigset_t blocked;

    sigemptyset(&wanted);
    sigaddset(&wanted, SIGINT);
    sigaddset(&wanted, SIGTERM);
    sigaddset(&wanted, SIGHUP);
    interrupt->signal = 0;
    blocked = wanted;
    sigaddset(&blocked, SIGPIPE); /* a reader that went away is an error */
    if (sigprocmask(SIG_BLOCK, &blocked, &interrupt->before) < 0) {
        return error_set_errno(err, -errno, "cannot block signals");
    }
    interrupt->fd = signalfd(-1, &wanted, SFD_CLOEXEC | SFD_NONBLOCK);
    if (interrupt->fd < 0) {
        return error_set_errno(err, -errno, "cannot wait for signals");
    }
    return 0;
}

void interrupt_end(struct interrupt *interrupt)
{
    if (interrupt->fd >= 0) {
        (void)close(interrupt->fd); /* nothing to lose */
        interrupt->fd = -1;
    }
}

bool interrupt_came(struct interrupt *interrupt)
{
    struct signalfd_siginfo info;

    if (interrupt->signal == 0 &&
        read(interrupt->fd, &info, sizeof(info)) == sizeof(info)) {
        interrupt->signal = (int)info.ssi_signo;
    }
    return interrupt->signal != 0;
}
