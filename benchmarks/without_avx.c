/* Answers CPUID as an x86-64 processor without AVX would, to libraries whose CPUID instructions were replaced by UD2
   (both are two bytes long). The rest of what the processor says, and what it does, stays as it is. */
#define _GNU_SOURCE
#include <cpuid.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <ucontext.h>

enum { FEATURES = 1, MORE_FEATURES = 7, SAVED_STATE = 13 };

/* of leaf 1, ecx: FMA, XSAVE, OSXSAVE, AVX, F16C; of leaf 7, ebx: AVX2 and every part of AVX-512 */
static const uint32_t AVX = 1u << 12 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 29;
static const uint32_t AVX2 = 1u << 5 | 1u << 16 | 1u << 17 | 1u << 21 | 1u << 26 | 1u << 27 | 1u << 28 | 1u << 30 | 1u << 31;

static void answer(int number, siginfo_t *details, void *given) {
    greg_t *registers = ((ucontext_t *)given)->uc_mcontext.gregs;
    const uint8_t *code = (const uint8_t *)registers[REG_RIP];
    uint32_t leaf = (uint32_t)registers[REG_RAX], part = (uint32_t)registers[REG_RCX], a, b, c, d;
    (void)details;
    if (code[0] != 0x0f || code[1] != 0x0b) {
        signal(number, SIG_DFL);
        return;
    }
    __cpuid_count(leaf, part, a, b, c, d);
    if (leaf == FEATURES)
        c &= ~AVX;
    if (leaf == MORE_FEATURES) {
        a = part ? 0 : a;
        b = part ? 0 : b & ~AVX2;
        c = d = 0;
    }
    if (leaf == SAVED_STATE)
        a = b = c = d = 0;
    registers[REG_RAX] = a;
    registers[REG_RBX] = b;
    registers[REG_RCX] = c;
    registers[REG_RDX] = d;
    registers[REG_RIP] += 2;
}

__attribute__((constructor)) static void install(void) {
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_sigaction = answer;
    action.sa_flags = SA_SIGINFO | SA_NODEFER;
    sigaction(SIGILL, &action, 0);
}
