/* DXGI's interface over two virtual adapters, for tests: objects are tables of functions at the places that dxgi.h and
   dxgi1_4.h of the Windows SDK give them. Any other place ends the process. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef struct { uint16_t description[128]; unsigned vendor, device, subsystem, revision;
                 size_t dedicated_video, dedicated_system, shared_system; uint32_t luid[2]; unsigned flags; } Desc1;
typedef struct { uint64_t budget, usage, available, reserved; } MemoryInfo;
typedef struct Object { void **table; int index; int references; } Object;

static const unsigned char FACTORY1[16] = {0x78, 0xae, 0x0a, 0x77, 0x6f, 0xf2, 0xba, 0x4d, 0xa8, 0x29, 0x25, 0x3c, 0x83, 0xd1, 0xb3, 0x87};
static const unsigned char ADAPTER3[16] = {0xa4, 0x67, 0x59, 0x64, 0x92, 0x13, 0x10, 0x43, 0xa7, 0x98, 0x80, 0x53, 0xce, 0x3e, 0x93, 0xfd};
static const char *NAMES[] = {"AMD Radeon RX 6600", "Microsoft Basic Render Driver"};
static void *factory_table[14], *adapter_table[15];
static Object factory, adapters[2];
int live_references(void) { return factory.references + adapters[0].references + adapters[1].references; }

static long unexpected(void *self) { (void) self; abort(); }
static long release(void *self) { return --((Object *) self)->references; }

static long get_desc1(void *self, Desc1 *out) {
    int index = ((Object *) self)->index;
    memset(out, 0, sizeof *out);
    for (size_t i = 0; i < strlen(NAMES[index]); i++) out->description[i] = (unsigned char) NAMES[index][i];
    out->vendor = index ? 0x1414 : 0x1002;
    out->device = index ? 0x8c : 0x73ff;
    out->dedicated_video = index ? 0 : 8557000000;
    out->shared_system = 8589934592;
    out->flags = index ? 2 : 0;
    return 0;
}

static long query_interface(void *self, const unsigned char *identity, void **out) {
    Object *adapter = self;
    if (adapter->index || memcmp(identity, ADAPTER3, 16)) return 0x80004002L; /* E_NOINTERFACE */
    adapter->references++;
    *out = self;
    return 0;
}

static long query_video_memory_info(void *self, unsigned node, int group, MemoryInfo *out) {
    (void) self;
    *out = (MemoryInfo){group ? 7000000000 : 7400000000, group ? 1 : 2, 0, 0};
    return node ? 0x887a0001L : 0;
}

static long enum_adapters1(void *self, unsigned index, void **out) {
    (void) self;
    if (index > 1) return 0x887a0002L; /* DXGI_ERROR_NOT_FOUND */
    adapters[index].references++;
    *out = &adapters[index];
    return 0;
}

long CreateDXGIFactory1(const unsigned char *identity, void **out) {
    if (memcmp(identity, FACTORY1, 16)) return 0x80004002L;
    for (int i = 0; i < 14; i++) factory_table[i] = (void *) unexpected;
    for (int i = 0; i < 15; i++) adapter_table[i] = (void *) unexpected;
    factory_table[2] = adapter_table[2] = (void *) release;
    factory_table[12] = (void *) enum_adapters1;
    adapter_table[0] = (void *) query_interface;
    adapter_table[10] = (void *) get_desc1;
    adapter_table[14] = (void *) query_video_memory_info;
    factory = (Object){factory_table, 0, 1};
    for (int i = 0; i < 2; i++) adapters[i] = (Object){adapter_table, i, 0};
    *out = &factory;
    return 0;
}
