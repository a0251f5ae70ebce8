/* Vulkan's interface over two virtual devices, for tests. Layouts and numbers are those of vulkan_core.h. */

#include <stdint.h>
#include <stdio.h>
#include <string.h>

typedef struct Chain { uint32_t type; struct Chain *next; } Chain;
typedef struct { uint32_t before[7], storage_range; uint8_t between[272]; uint64_t map_alignment, texel, uniform, storage_alignment; } Limits;
typedef struct { uint32_t type; void *next; uint32_t api, driver, vendor, device, kind; char name[256]; uint8_t uuid[16]; Limits limits; } Properties2;
typedef struct { uint32_t type; void *next; uint32_t descriptors; uint64_t allocation; } Maintenance3;
typedef struct { uint32_t type; void *next; uint64_t buffer; } Maintenance4;
typedef struct { uint32_t type; void *next; uint32_t domain, bus, device, function; } Pci;
typedef struct { uint64_t size; uint32_t flags; } Heap;
typedef struct { uint32_t type; void *next; uint32_t n_types; struct { uint32_t flags, heap; } types[32]; uint32_t n_heaps; Heap heaps[16]; } Memory2;
typedef struct { uint32_t type; void *next; uint64_t budget[16], usage[16]; } Budget;
typedef struct { char name[256]; uint32_t version; } Extension;

static int devices[2] = {0, 1};

int vkCreateInstance(const Chain *info, const void *allocator, void **out) {
    (void) allocator;
    *out = devices;
    return info->type == 1 ? 0 : -9;
}

void vkDestroyInstance(void *instance, const void *allocator) { (void) instance, (void) allocator; }

int vkEnumeratePhysicalDevices(void *instance, uint32_t *count, void **out) {
    (void) instance;
    for (uint32_t i = 0; i < 2 && i < *count; i++) out[i] = &devices[i];
    *count = 2;
    return 0;
}

int vkEnumerateDeviceExtensionProperties(int *device, const char *layer, uint32_t *count, Extension *out) {
    (void) layer;
    *count = *device ? 0 : 3;
    strcpy(out[0].name, "VK_EXT_pci_bus_info");
    strcpy(out[1].name, "VK_EXT_memory_budget");
    strcpy(out[2].name, "VK_KHR_maintenance4");
    return 0;
}

void vkGetPhysicalDeviceProperties2(int *device, Properties2 *out) {
    if (out->type != 1000059001) return;
    out->vendor = *device ? 0x5143 : 0x1002;
    out->device = *device ? 0x1 : 0x744c;
    out->kind = *device ? 1 : 2;
    snprintf(out->name, 256, "%s", *device ? "Adreno X1-85" : "AMD Radeon RX 7900 XTX (RADV NAVI31)");
    if (*device) return;
    out->limits.storage_range = 0xffffffff; out->limits.map_alignment = 4096; out->limits.storage_alignment = 4;
    for (Chain *link = out->next; link; link = link->next) {
        if (link->type == 1000212000) { Pci *pci = (Pci *) link; pci->domain = 0; pci->bus = 3; pci->device = 0; pci->function = 0; }
        if (link->type == 1000168000) ((Maintenance3 *) link)->allocation = 0xfffffffc;
        if (link->type == 1000413001) ((Maintenance4 *) link)->buffer = 0xfffffff8;
    }
}

void vkGetPhysicalDeviceMemoryProperties2(int *device, Memory2 *out) {
    if (out->type != 1000059006) return;
    out->n_heaps = *device ? 1 : 2;
    out->heaps[0] = *device ? (Heap){24ull << 30, 1} : (Heap){24ull << 30, 1};
    out->heaps[1] = (Heap){32ull << 30, 0};
    Budget *budget = out->next;
    if (budget && budget->type == 1000237000)
        for (int i = 0; i < 2; i++) { budget->budget[i] = 22ull << 30; budget->usage[i] = 1ull << 30; }
}
