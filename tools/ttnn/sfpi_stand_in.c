// ttt_sfpi_stand_in: takes the place of the compiler that TTNN calls for its device kernels, which is not on PyPI, so that a
// mock cluster can build programs. It compiles nothing. A compile step leaves an empty object; a link step links one small
// function by the real linker script and the real firmware symbols, which is what TTNN's loader checks. Kernels do nothing:
// calls, allocations and programs are real, numbers are not. Needs Debian's binutils-riscv64-unknown-elf.
//
// TTNN calls it ten times for a kernel and a sweep builds thousands of kernels, hence a program and not a script.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { most_arguments = 256 };

static void fail(const char* what) {
  fprintf(stderr, "ttt_sfpi_stand_in: %s: %s\n", what, strerror(errno));
  exit(1);
}

static char* text(const char* format, const char* a, const char* b) {
  char* out = NULL;
  if (asprintf(&out, format, a, b) < 0) fail("asprintf");
  return out;
}

static void write_file(const char* path, const char* contents) {
  FILE* file = fopen(path, "w");
  if (file == NULL || fputs(contents, file) < 0 || fclose(file) != 0) fail(path);
}

static void copy_file(const char* from, const char* to) {
  char block[1 << 16];
  const int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
  if (in < 0) fail(from);
  if (out < 0) fail(to);
  for (ssize_t n; (n = read(in, block, sizeof block)) != 0;)
    if (n < 0 || write(out, block, (size_t)n) != n) fail(to);
  if (close(in) != 0 || close(out) != 0) fail(to);
}

static void run(char* const* arguments) {
  const pid_t child = fork();
  if (child == 0) {
    execvp(arguments[0], arguments);
    fail(arguments[0]);
  }
  int status = 0;
  if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
    fprintf(stderr, "ttt_sfpi_stand_in: %s failed\n", arguments[0]);
    exit(1);
  }
}

static void make_folders(const char* path) {
  char* copy = strdup(path);
  for (char* slash = copy + 1; (slash = strchr(slash, '/')) != NULL; ++slash) {
    *slash = '\0';
    mkdir(copy, 0755);
    *slash = '/';
  }
  if (mkdir(copy, 0755) != 0 && errno != EEXIST) fail(copy);
  free(copy);
}

// Code and data that refer to each other, so that both segments and their relocations are there.
static const char assembly[] =
    "  .section .start,\"ax\",@progbits\n  .globl _start\n_start:\n  lui  a0,%hi(word)\n  lw   a0,%lo(word)(a0)\n  ret\n"
    "  .section .data,\"aw\",@progbits\n  .globl word\nword:\n  .word word\n";

// The kernel for one linker script and one firmware: linked when it is first asked for.
static char* linked_kernel(const char* script, const char* symbols, char** folders, int folder_count) {
  const char* home = getenv("HOME") != NULL ? getenv("HOME") : "";
  const char* chosen = getenv("TTT_STAND_IN_CACHE");
  char* caches = getenv("XDG_CACHE_HOME") != NULL ? text("%s%s", getenv("XDG_CACHE_HOME"), "") : text("%s/.cache%s", home, "");
  char* cache = chosen != NULL ? text("%s%s", chosen, "") : text("%s/ttt/sfpi_stand_in%s", caches, "");
  uint64_t key = 0xcbf29ce484222325u;
  char* named = text("%s|%s", script, symbols);
  for (const char* c = named; *c != '\0'; ++c) key = (key ^ (unsigned char)*c) * 0x100000001b3u;
  char number[32];
  snprintf(number, sizeof number, "%016llx", (unsigned long long)key);
  char* linked = text("%s/%s.elf", cache, number);
  if (access(linked, R_OK) == 0) return linked;

  make_folders(cache);
  char* work = text("%s/work.XXXXXX%s", cache, "");
  if (mkdtemp(work) == NULL) fail(work);
  char *source = text("%s/%s", work, "kernel.s"), *object = text("%s/%s", work, "kernel.o"), *kernel = text("%s/%s", work, "kernel.elf");
  write_file(source, assembly);
  run((char*[]){"riscv64-unknown-elf-as", "-march=rv32im", "-mabi=ilp32", "-mno-relax", "-o", object, source, NULL});
  char* link[most_arguments] = {"riscv64-unknown-elf-ld", "-m",       "elf32lriscv", "--no-relax", "--emit-relocs", "-z",
                                "max-page-size=16",       "-z",       "common-page-size=16"};
  int n = 9;
  for (int i = 0; i < folder_count; ++i) link[n++] = folders[i];
  // Some linker scripts include others from here.
  char* root = strdup(script);
  char* runtime = strstr(root, "/runtime/");
  if (runtime != NULL) {
    *runtime = '\0';
    link[n++] = text("-L%s/tt_metal/hw/toolchain%s", root, "");
  }
  link[n++] = "-T", link[n++] = (char*)script;
  if (*symbols != '\0') link[n++] = text("--just-symbols=%s%s", symbols, "");
  link[n++] = "-o", link[n++] = kernel, link[n++] = object, link[n] = NULL;
  run(link);
  if (rename(kernel, linked) != 0) fail(linked);
  unlink(source), unlink(object), rmdir(work);
  return linked;
}

int main(int argc, char** argv) {
  const char *output = NULL, *dependencies = NULL, *source = "", *script = "", *symbols = "";
  char* folders[most_arguments / 2];
  int folder_count = 0, object = 0;
  for (int i = 1; i < argc; ++i) {
    char* a = argv[i];
    const char* next = i + 1 < argc ? argv[i + 1] : "";
    if (strcmp(a, "--version") == 0) {
      char path[4096] = "", version[128] = "";
      if (readlink("/proc/self/exe", path, sizeof path - 1) < 0) fail("/proc/self/exe");
      FILE* file = fopen(text("%s/%s", dirname(path), "stand_in.version"), "r");
      if (file == NULL || fgets(version, sizeof version, file) == NULL) fail("stand_in.version");
      version[strcspn(version, "\n")] = '\0';
      printf("riscv-tt-elf-g++ (%s) 15.1.0\n", version);
      return 0;
    }
    if (strcmp(a, "-o") == 0) {
      output = next, ++i;
    } else if (strcmp(a, "-MF") == 0) {
      dependencies = next, ++i;
    } else if (strcmp(a, "-x") == 0) {
      object |= strcmp(next, "c++-header") == 0, ++i;
    } else if (strcmp(a, "-include") == 0) {
      ++i;
    } else if (strcmp(a, "-c") == 0 || strcmp(a, "-E") == 0) {
      object = 1;
    } else if (strncmp(a, "-T", 2) == 0) {
      script = a + 2;
    } else if (strncmp(a, "-L", 2) == 0) {
      if (folder_count < most_arguments / 2) folders[folder_count++] = a;
    } else if (strncmp(a, "-Wl,--just-symbols=", 19) == 0) {
      symbols = a + 19;
    } else if (*a != '-') {
      source = a;
    }
  }
  if (output == NULL || *output == '\0') return 0;
  if (object) {
    write_file(output, "");
    if (dependencies != NULL) write_file(dependencies, text("%s: %s\n", output, source));
    return 0;
  }
  copy_file(linked_kernel(script, symbols, folders, folder_count), output);
  return 0;
}
