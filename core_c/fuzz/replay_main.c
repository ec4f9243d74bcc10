/* main() for the fuzz targets where there is no libFuzzer: runs each file named
 * on the command line once, as the fuzzer would, in memory of exactly its size. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *octets, size_t len);

static int replay(const char *path)
{
    FILE *file = fopen(path, "rb");
    long len = -1;
    if (file != NULL && fseek(file, 0, SEEK_END) == 0)
        len = ftell(file);
    uint8_t *octets = len >= 0 ? malloc(len > 0 ? (size_t)len : 1) : NULL;
    int failed = 1;
    if (octets != NULL) {
        rewind(file);
        if (fread(octets, 1, (size_t)len, file) == (size_t)len) {
            (void)LLVMFuzzerTestOneInput(octets, (size_t)len);
            failed = 0;
        }
    }
    if (failed)
        perror(path);
    free(octets);
    if (file != NULL)
        fclose(file);
    return failed;
}

int main(int argc, char **argv)
{
    int failed = 0;
    for (int i = 1; i < argc; i++)
        failed |= replay(argv[i]);
    return failed;
}
