/* What the processor is, for those that have a loop for each kind; described in library.py. */

#include <stdint.h>

#ifdef __x86_64__
#include <cpuid.h>
#endif

/* What the processor has, and the system saves for it. Compilers' own dispatch (target_clones) asks
   a runtime that zig leaves out, and then takes the least. */
int64_t vector_bits(void)
{
#ifdef __x86_64__
    uint32_t a, b, c, c1, d, saved, unused;
    if (!__get_cpuid(1, &a, &b, &c1, &d) || !(c1 & bit_OSXSAVE))
        return 128;
    __asm__("xgetbv" : "=a"(saved), "=d"(unused) : "c"(0));
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(b & bit_BMI))
        return 128;
    if (b & bit_AVX512F && (saved & 0xe6) == 0xe6)
        return 512;
    if (b & bit_AVX2 && c1 & bit_F16C && c1 & bit_FMA && (saved & 0x06) == 0x06)
        return 256;
#endif
    return 128;
}
