/* A TCG plugin of qemu-user: counts the A64 instructions a guest executes, by class, between markers.
 *
 * A marker is write(MARK | k, ...) in the guest: no such file is open, so that it fails there and is seen here. Every
 * marker writes a line of JSON: k, and the counts so far, of all threads together.
 *
 * The plugin interface of qemu 7.2 to 8.2 (version 1), declared here so that neither qemu's nor glib's headers need be
 * installed. Encodings: Arm Architecture Reference Manual for A-profile (DDI 0487), C4 "A64 Instruction Set Encoding".
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
typedef void (*translation_callback)(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void (*syscall_callback)(qemu_plugin_id_t, unsigned vcpu, int64_t number, uint64_t, uint64_t, uint64_t,
                                 uint64_t, uint64_t, uint64_t, uint64_t, uint64_t);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translation_callback);
extern void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *, int operation, void *, uint64_t);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
extern void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, syscall_callback);
EXPORT int qemu_plugin_version = 1;

enum { ADD_U64 = 0, WRITE = 64 };
#define MARK UINT64_C(0x7EC00000)
#define MARK_MASK UINT64_C(0xFFFF0000)

enum kind { DOT, MATRIX_MULTIPLY, MULTIPLY_ADD, LOAD_STORE, LOAD_STORE_SIMD, BRANCH, INTEGER, SIMD, KINDS };
static const char *const NAMES[KINDS] = {
    "dot", "matrix_multiply", "multiply_add", "load_store", "load_store_simd", "branch", "integer", "simd"};

/* Of the SIMD and floating-point encodings, those that multiply and add. An instruction is of the first row where
 * (word & mask) == value. Where a row is for several, the bits that tell them apart are left out of the mask. */
static const struct { uint32_t mask, value; enum kind kind; } ROWS[] = {
    {0x9FE0FC00, 0x0E809400, DOT},             /* SDOT, UDOT */
    {0x9FC0F400, 0x0F80E000, DOT},             /* SDOT, UDOT by element */
    {0xBFE0FC00, 0x0E809C00, DOT},             /* USDOT */
    {0xBF40F400, 0x0F00F000, DOT},             /* SUDOT, USDOT by element */
    {0xBFE0FC00, 0x2E40FC00, DOT},             /* BFDOT */
    {0xBFC0F400, 0x0F40F000, DOT},             /* BFDOT by element */
    {0xDFE0FC00, 0x4E80A400, MATRIX_MULTIPLY}, /* SMMLA, UMMLA */
    {0xFFE0FC00, 0x4E80AC00, MATRIX_MULTIPLY}, /* USMMLA */
    {0xFFE0FC00, 0x6E40EC00, MATRIX_MULTIPLY}, /* BFMMLA */
    {0xBF20FC00, 0x0E20CC00, MULTIPLY_ADD},    /* FMLA, FMLS */
    {0xBF60FC00, 0x0E400C00, MULTIPLY_ADD},    /* FMLA, FMLS of half precision */
    {0xBF60FC00, 0x0E20EC00, MULTIPLY_ADD},    /* FMLAL, FMLSL */
    {0xBF60FC00, 0x2E20CC00, MULTIPLY_ADD},    /* FMLAL2, FMLSL2 */
    {0xAF80B400, 0x0F801000, MULTIPLY_ADD},    /* FMLA, FMLS by element, vector and scalar */
    {0xAFC0B400, 0x0F001000, MULTIPLY_ADD},    /* FMLA, FMLS by element, of half precision */
    {0xBFC0B400, 0x0F800000, MULTIPLY_ADD},    /* FMLAL, FMLSL by element */
    {0xBFC0B400, 0x2F808000, MULTIPLY_ADD},    /* FMLAL2, FMLSL2 by element */
    {0xBFE0FC00, 0x2EC0FC00, MULTIPLY_ADD},    /* BFMLALB, BFMLALT */
    {0xBFC0F400, 0x0FC0F000, MULTIPLY_ADD},    /* BFMLALB, BFMLALT by element */
    {0xBF20E400, 0x2E00C400, MULTIPLY_ADD},    /* FCMLA */
    {0xBF009400, 0x2F001000, MULTIPLY_ADD},    /* FCMLA by element */
    {0xFF000000, 0x1F000000, MULTIPLY_ADD},    /* FMADD, FMSUB, FNMADD, FNMSUB */
    {0x9F20FC00, 0x0E209400, MULTIPLY_ADD},    /* MLA, MLS */
    {0xBF00B400, 0x2F000000, MULTIPLY_ADD},    /* MLA, MLS by element */
    {0x9F20DC00, 0x0E208000, MULTIPLY_ADD},    /* SMLAL, UMLAL, SMLSL, UMLSL */
    {0x9F00B400, 0x0F002000, MULTIPLY_ADD},    /* SMLAL, UMLAL, SMLSL, UMLSL by element */
    {0xBF20DC00, 0x0E209000, MULTIPLY_ADD},    /* SQDMLAL, SQDMLSL */
    {0xAF00B400, 0x0F003000, MULTIPLY_ADD},    /* SQDMLAL, SQDMLSL by element, vector and scalar */
    {0xFF20DC00, 0x5E209000, MULTIPLY_ADD},    /* SQDMLAL, SQDMLSL, scalar */
    {0xBF20F400, 0x2E008400, MULTIPLY_ADD},    /* SQRDMLAH, SQRDMLSH */
    {0xFF20F400, 0x7E008400, MULTIPLY_ADD},    /* SQRDMLAH, SQRDMLSH, scalar */
    {0xAF00D400, 0x2F00D000, MULTIPLY_ADD},    /* SQRDMLAH, SQRDMLSH by element, vector and scalar */
};

/* Exported for the tests, which call it on encodings. */
EXPORT int classify(uint32_t word)
{
    unsigned group = word >> 25 & 15; /* bits 28 to 25 */
    if ((group & 5) == 4)
        return word & 1u << 26 ? LOAD_STORE_SIMD : LOAD_STORE;
    if ((group & 14) == 10)
        return BRANCH;
    if ((group & 7) != 7)
        return group == 2 ? SIMD : INTEGER; /* 2: SVE */
    for (size_t i = 0; i < sizeof ROWS / sizeof *ROWS; i++)
        if ((word & ROWS[i].mask) == ROWS[i].value)
            return ROWS[i].kind;
    return SIMD;
}

static uint64_t counts[KINDS];
static FILE *out;

static void translate(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    uint64_t found[KINDS] = {0};
    size_t size = qemu_plugin_tb_n_insns(block);
    for (size_t i = 0; i < size; i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        found[classify(word)]++;
    }
    /* added to whenever the block begins, without a call and without a lock: they hold for one thread */
    for (int i = 0; i < KINDS; i++)
        if (found[i])
            qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &counts[i], found[i]);
}

static void watch_syscall(qemu_plugin_id_t id, unsigned vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3,
                          uint64_t a4, uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    if (number != WRITE || (a1 & MARK_MASK) != MARK)
        return;
    fprintf(out, "{\"mark\": %" PRIu64 "", a1 & ~MARK_MASK & 0xFFFFFFFF);
    for (int i = 0; i < KINDS; i++)
        fprintf(out, ", \"%s\": %" PRIu64, NAMES[i], counts[i]);
    fprintf(out, "}\n");
    fflush(out);
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const void *info, int argc, char **argv)
{
    if (argc != 1 || strncmp(argv[0], "out=", 4) || !(out = fopen(argv[0] + 4, "w")))
        return -1;
    qemu_plugin_register_vcpu_tb_trans_cb(id, translate);
    qemu_plugin_register_vcpu_syscall_cb(id, watch_syscall);
    return 0;
}
