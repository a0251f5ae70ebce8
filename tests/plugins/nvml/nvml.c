/* NVML's C interface over virtual cards, for tests: what nvidia-ml-py calls, with NVML's own types and error codes.

   The cards stand in the file that VIRTUAL_NVML names, one `key=value` a line: `card` begins a card, `slice` a MIG slice of
   it, lines before the first belong to the system. What a card does not state is NVML_ERROR_NOT_SUPPORTED, as on real ones.
   `<key>_error=N` makes a query fail with N. The signatures follow nvml.h of CUDA 12. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { OK = 0, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, VERSION_MISMATCH = 25 };

typedef unsigned long long u64;
typedef struct Section { char kind; int parent; int n; char key[48][48]; char value[48][160]; } Section;
typedef Section *nvmlDevice_t;

typedef struct { u64 total, free, used; } nvmlMemory_t;
typedef struct { unsigned version; u64 total, reserved, free, used; } nvmlMemory_v2_t;
typedef struct {
    char busIdLegacy[16]; unsigned domain, bus, device, pciDeviceId, pciSubSystemId; char busId[32];
} nvmlPciInfo_t;
typedef struct { unsigned pid; u64 usedGpuMemory; unsigned gpuInstanceId, computeInstanceId; } nvmlProcessInfo_t;
typedef struct { unsigned version, value; } nvmlAddressingMode_t;

static Section sections[64];
static int n_sections;

static const char *get(const Section *s, const char *key) {
    for (int i = 0; i < s->n; i++) if (!strcmp(s->key[i], key)) return s->value[i];
    return NULL;
}

static int fails(const Section *s, const char *key) {
    char name[64];
    snprintf(name, sizeof name, "%s_error", key);
    const char *code = get(s, name);
    return code ? atoi(code) : OK;
}

static int number(const Section *s, const char *key, u64 *out) {
    if (fails(s, key)) return fails(s, key);
    const char *value = get(s, key);
    if (!value) return NOT_SUPPORTED;
    *out = strtoull(value, NULL, 0);
    return OK;
}

static int small(const Section *s, const char *key, unsigned *out) {
    u64 value = 0;
    int code = number(s, key, &value);
    if (!code) *out = (unsigned) value;
    return code;
}

static int text(const Section *s, const char *key, char *out, unsigned length) {
    if (fails(s, key)) return fails(s, key);
    const char *value = get(s, key);
    if (!value) return NOT_SUPPORTED;
    if (strlen(value) >= length) return INSUFFICIENT_SIZE;
    strcpy(out, value);
    return OK;
}

static void read_cards(void) {
    const char *path = getenv("VIRTUAL_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[256];
    int card = 0;
    n_sections = 1;
    sections[0] = (Section){.kind = 'y'};
    while (file && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if ((!strcmp(line, "card") || !strcmp(line, "slice")) && n_sections < 64) {
            if (line[0] == 'c') card = n_sections;
            sections[n_sections] = (Section){.kind = line[0], .parent = card};
            n_sections++;
            continue;
        }
        char *equals = strchr(line, '=');
        Section *s = &sections[n_sections - 1];
        if (!equals || s->n == 48) continue;
        *equals = 0;
        snprintf(s->key[s->n], 48, "%s", line);
        snprintf(s->value[s->n], 160, "%s", equals + 1);
        s->n++;
    }
    if (file) fclose(file);
}

static Section *nth(char kind, int parent, unsigned index) {
    for (int i = 1; i < n_sections; i++) {
        Section *s = &sections[i];
        if (s->kind == kind && (kind == 'c' || s->parent == parent) && index-- == 0) return s;
    }
    return NULL;
}

int nvmlInitWithFlags(unsigned flags) {
    (void) flags;
    read_cards();
    const char *hang = get(&sections[0], "hang_seconds");
    if (hang) sleep((unsigned) atoi(hang));
    return fails(&sections[0], "init");
}

int nvmlInit_v2(void) { return nvmlInitWithFlags(0); }
int nvmlShutdown(void) { return OK; }
const char *nvmlErrorString(int code) { (void) code; return "virtual error"; }
int nvmlSystemGetDriverVersion(char *out, unsigned length) { return text(&sections[0], "driver", out, length); }

int nvmlSystemGetProcessName(unsigned pid, char *out, unsigned length) {
    char key[32];
    snprintf(key, sizeof key, "process_%u", pid);
    return text(&sections[0], key, out, length) ? NOT_FOUND : OK;
}

int nvmlDeviceGetCount_v2(unsigned *count) {
    for (*count = 0; nth('c', 0, *count); ++*count) {}
    return OK;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, nvmlDevice_t *out) {
    *out = nth('c', 0, index);
    if (!*out) return INVALID_ARGUMENT;
    return fails(*out, "handle");
}

int nvmlDeviceGetName(nvmlDevice_t d, char *out, unsigned length) { return text(d, "name", out, length); }
int nvmlDeviceGetUUID(nvmlDevice_t d, char *out, unsigned length) { return text(d, "uuid", out, length); }
int nvmlDeviceGetMemoryBusWidth(nvmlDevice_t d, unsigned *out) { return small(d, "bus_width", out); }
int nvmlDeviceGetNumGpuCores(nvmlDevice_t d, unsigned *out) { return small(d, "cores", out); }
int nvmlDeviceGetMaxPcieLinkGeneration(nvmlDevice_t d, unsigned *out) { return small(d, "pcie_generation", out); }
int nvmlDeviceGetMaxPcieLinkWidth(nvmlDevice_t d, unsigned *out) { return small(d, "pcie_width", out); }
int nvmlDeviceGetVirtualizationMode(nvmlDevice_t d, unsigned *out) { return small(d, "virtualization", out); }

int nvmlDeviceGetAddressingMode(nvmlDevice_t d, nvmlAddressingMode_t *out) { return small(d, "addressing", &out->value); }

int nvmlDeviceGetMaxClockInfo(nvmlDevice_t d, unsigned type, unsigned *out) {
    return small(d, type == 2 ? "memory_clock" : type == 1 ? "core_clock" : "?", out);
}

int nvmlDeviceGetCudaComputeCapability(nvmlDevice_t d, int *major, int *minor) {
    const char *value = get(d, "compute_capability");
    return value && sscanf(value, "%d.%d", major, minor) == 2 ? OK : NOT_SUPPORTED;
}

int nvmlDeviceGetPciInfo_v3(nvmlDevice_t d, nvmlPciInfo_t *out) {
    u64 id = 0;
    memset(out, 0, sizeof *out);
    if (text(d, "pci", out->busId, sizeof out->busId)) return NOT_SUPPORTED;
    number(d, "pci_device", &id);
    out->pciDeviceId = (unsigned) id;
    return OK;
}

int nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *out) {
    u64 reserved = 0;
    int code = fails(d, "memory");
    if (code) return code;
    if (number(d, "total", &out->total) || number(d, "free", &out->free)) return NOT_SUPPORTED;
    number(d, "reserved", &reserved);
    out->used = out->total - out->free; /* version 1 counts what is reserved as used */
    return OK;
}

#ifndef OLD_DRIVER
int nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, nvmlMemory_v2_t *out) {
    nvmlMemory_t first;
    if (out->version != (sizeof *out | 2u << 24)) return VERSION_MISMATCH;
    int code = nvmlDeviceGetMemoryInfo(d, &first);
    if (code) return code;
    out->reserved = 0;
    number(d, "reserved", &out->reserved);
    out->total = first.total;
    out->free = first.free;
    out->used = first.used - out->reserved;
    return OK;
}
#endif

int nvmlDeviceGetMigMode(nvmlDevice_t d, unsigned *current, unsigned *pending) {
    int code = small(d, "mig", current);
    *pending = *current;
    return code;
}

int nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t d, unsigned *out) { (void) d; *out = 7; return OK; }

int nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t d, unsigned index, nvmlDevice_t *out) {
    *out = nth('s', (int) (d - sections), index);
    return *out ? OK : NOT_FOUND;
}

static int processes(nvmlDevice_t d, const char *key, unsigned *count, nvmlProcessInfo_t *out) {
    const char *list = get(d, key); /* pid:bytes,pid:bytes; without bytes as WDDM answers */
    unsigned n = 0, room = *count;
    if (fails(d, key)) return fails(d, key);
    while (list && *list) {
        char *end;
        nvmlProcessInfo_t process = {(unsigned) strtoul(list, &end, 10), ~0ull, ~0u, ~0u};
        if (*end == ':') process.usedGpuMemory = strtoull(end + 1, &end, 10);
        if (n < room && out) out[n] = process;
        n++;
        list = *end == ',' ? end + 1 : NULL;
    }
    *count = n;
    return n > room || (n && !out) ? INSUFFICIENT_SIZE : OK;
}

int nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned *count, nvmlProcessInfo_t *out) {
    return processes(d, "compute", count, out);
}

int nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t d, unsigned *count, nvmlProcessInfo_t *out) {
    return processes(d, "graphics", count, out);
}
