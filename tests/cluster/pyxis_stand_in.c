/* Stands in for the pyxis plugin: takes its options (https://github.com/NVIDIA/pyxis, README), runs
 * no container, and tells each task what it was given. --container-image=I becomes
 * STAND_IN_PYXIS_IMAGE=I; an option without a value becomes 1. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <slurm/spank.h>

SPANK_PLUGIN(pyxis_stand_in, 1);

enum { OPTIONS = 15, FLAG = 0, VALUE = 1 };

static char *given[OPTIONS];

static int keep(int option, const char *value, int remote) {
  free(given[option]);
  given[option] = strdup(value && *value ? value : "1");
  return 0;
}

#define OPTION(place, name, kind) {name, (kind) == VALUE ? "VALUE" : NULL, "stand-in", kind, place, keep}

static struct spank_option options[] = {
    OPTION(0, "container-image", VALUE),
    OPTION(1, "container-mounts", VALUE),
    OPTION(2, "container-workdir", VALUE),
    OPTION(3, "container-name", VALUE),
    OPTION(4, "container-save", VALUE),
    OPTION(5, "container-env", VALUE),
    OPTION(6, "container-mount-home", FLAG),
    OPTION(7, "no-container-mount-home", FLAG),
    OPTION(8, "container-remap-root", FLAG),
    OPTION(9, "no-container-remap-root", FLAG),
    OPTION(10, "container-entrypoint", FLAG),
    OPTION(11, "no-container-entrypoint", FLAG),
    OPTION(12, "container-entrypoint-log", FLAG),
    OPTION(13, "container-writable", FLAG),
    OPTION(14, "container-readonly", FLAG),
    SPANK_OPTIONS_TABLE_END,
};

/* container-image → STAND_IN_PYXIS_IMAGE, no-container-mount-home → STAND_IN_PYXIS_NO_MOUNT_HOME */
static void variable(const char *option, char *name, size_t size) {
  const char *negated = strncmp(option, "no-", 3) == 0 ? "no-" : "";
  const char *word = option + strlen(negated) + strlen("container-");
  snprintf(name, size, "STAND_IN_PYXIS_%s%s", negated, word);
  for (char *c = name; *c; c++) *c = *c == '-' ? '_' : (char)toupper((unsigned char)*c);
}

int slurm_spank_init(spank_t sp, int ac, char **av) {
  spank_context_t context = spank_context();
  if (context == S_CTX_LOCAL || context == S_CTX_REMOTE || context == S_CTX_ALLOCATOR)
    for (int i = 0; i < OPTIONS; i++) spank_option_register(sp, &options[i]);
  return ESPANK_SUCCESS;
}

int slurm_spank_task_init(spank_t sp, int ac, char **av) {
  for (int i = 0; i < OPTIONS; i++) {
    char name[64];
    if (!given[i]) continue;
    variable(options[i].name, name, sizeof name);
    spank_setenv(sp, name, given[i], 1);
  }
  return ESPANK_SUCCESS;
}
