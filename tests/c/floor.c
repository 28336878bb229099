/*
 * Bare C, which `make bench` compares all others with: an echo server that forks
 * for each connection and does nothing else. It makes the C's system calls itself,
 * without a library, checks nothing and knows no lines. Usage: floor PORT [-r]
 * With -r others may listen on the same port.
 */
#include <asm/signal.h>
#include <asm/unistd.h>
#include <linux/in6.h>

enum { AF_INET6 = 10, SOCK_STREAM = 1, SOL_SOCKET = 1, SO_REUSEADDR = 2, WNOHANG = 1 };
enum { SO_REUSEPORT = 15 };

#if defined(__x86_64__)
__asm__(".globl _start\n_start: mov %rsp, %rdi\n call run\n"
        "restorer: mov $15, %eax\n syscall\n");

static inline long call(long n, long a, long b, long c, long d, long e)
{
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e;
    __asm__ volatile("syscall" : "+a"(n) : "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8)
                     : "rcx", "r11", "memory");
    return n;
}
#elif defined(__aarch64__)
__asm__(".globl _start\n_start: mov x0, sp\n b run\n"
        "restorer: mov x8, 139\n svc 0\n");

static inline long call(long n, long a, long b, long c, long d, long e)
{
    register long x8 __asm__("x8") = n, x0 __asm__("x0") = a, x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c, x3 __asm__("x3") = d, x4 __asm__("x4") = e;
    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
    return x0;
}
#endif
#define CALL_(n, a, b, c, d, e, ...) \
    call(__NR_##n, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e))
#define CALL(...) CALL_(__VA_ARGS__, 0, 0, 0, 0, 0, 0)

__attribute__((visibility("hidden"))) void restorer(void); /* no relocation for it */

static void reap(int sig)
{
    (void)sig;
    while (CALL(wait4, -1, 0, WNOHANG) > 0)
        ;
}

/* Listens on both families, and tells where by the line that forkline has. */
static long open_listenfd(const char *digits, int shared)
{
    char line[] = "bare C: echo listening on [::]:00000\n";
    struct sockaddr_in6 addr = {.sin6_family = AF_INET6};
    unsigned on = 1, size = sizeof(addr), port = 0;

    while (*digits)
        port = 10 * port + *digits++ - '0';
    addr.sin6_port = __builtin_bswap16(port);
    long listenfd = CALL(socket, AF_INET6, SOCK_STREAM);
    CALL(setsockopt, listenfd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (shared)
        CALL(setsockopt, listenfd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on));
    CALL(bind, listenfd, &addr, sizeof(addr));
    CALL(listen, listenfd, 1024);
    CALL(getsockname, listenfd, &addr, &size);
    port = __builtin_bswap16(addr.sin6_port);
    for (char *digit = line + sizeof(line) - 3; port > 0; port /= 10)
        *digit-- = '0' + port % 10;
    CALL(write, 2, line, sizeof(line) - 1);
    return listenfd;
}

/* The buffer begins a page that only the child writes to. */
__attribute__((noreturn, used)) static void run(char **stack)
{
    _Alignas(4096) char buf[128 * 1024];
    struct { void (*handler)(int); unsigned long flags; void (*restorer)(void); long mask; } chld;

    chld.handler = reap;
    chld.flags = SA_RESTART | 0x04000000; /* SA_RESTORER */
    chld.restorer = restorer;
    chld.mask = 0;
    CALL(rt_sigaction, SIGCHLD, &chld, 0, sizeof(chld.mask));
    long listenfd = open_listenfd(stack[2], stack[3] != 0);
    for (;;) {
        long connfd = CALL(accept, listenfd);
        if (CALL(clone, SIGCHLD) == 0) {
            CALL(close, listenfd);
            for (long n; (n = CALL(recvfrom, connfd, buf, sizeof(buf))) > 0;)
                CALL(sendto, connfd, buf, n);
            CALL(exit_group, 0);
        }
        CALL(close, connfd);
    }
}
