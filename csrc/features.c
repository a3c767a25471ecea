/* SPDX-License-Identifier: MIT */
/* Which kernel a machine is: profiles and features by name. The table is pyksm/features.py. */
#include "internal.h"

struct named {
	const char *name;
	uint64_t mask;
};

#define ROW(name, mask) { name, mask },
/* with the features that each has no meaning without */
static const struct named feature_table[] = { PYKSM_FEATURES(ROW) };
/* with the features of each; aliases are rows of their own */
static const struct named profile_table[] = { PYKSM_PROFILES(ROW) };
#undef ROW

#define NR_PROFILES (sizeof(profile_table) / sizeof(profile_table[0]))

_Static_assert(sizeof(feature_table) / sizeof(feature_table[0]) == NR_FEATURES, "a row a feature");

/* The set with all that its members need. */
static uint64_t with_needs(uint64_t set)
{
	uint64_t before;

	do {
		before = set;
		for (int i = 0; i < NR_FEATURES; i++)
			if ((set >> i) & 1)
				set |= feature_table[i].mask;
	} while (set != before);
	return set;
}

/* The set without those that need one that is not in it. */
static uint64_t without_unmet(uint64_t set)
{
	uint64_t before;

	do {
		before = set;
		for (int i = 0; i < NR_FEATURES; i++)
			if (feature_table[i].mask & ~set)
				set &= ~(1ull << i);
	} while (set != before);
	return set;
}

static const struct named *find_profile(const char *name)
{
	for (size_t i = 0; i < NR_PROFILES; i++)
		if (!strcmp(profile_table[i].name, name))
			return &profile_table[i];
	return NULL;
}

/* The features that a configuration asks for; -EINVAL for a name or a bit that nobody knows. */
int features_of(const struct pyksm_config *config, uint64_t *features)
{
	const struct named *profile =
		find_profile(config->profile ? config->profile : PYKSM_DEFAULT_PROFILE);
	uint64_t known = NR_FEATURES == 64 ? ~0ull : (1ull << NR_FEATURES) - 1;

	if (!profile || ((config->features | config->features_off) & ~known))
		return -EINVAL;
	if (config->exact_features)
		*features = config->features;
	else
		*features = with_needs(profile->mask | config->features);
	*features = without_unmet(*features & ~config->features_off);
	return 0;
}

int pyksm_nr_features(void)
{
	return NR_FEATURES;
}

const char *pyksm_feature_name(int index)
{
	return index < 0 || index >= NR_FEATURES ? NULL : feature_table[index].name;
}

const char *pyksm_profile_name(int index)
{
	return index < 0 || (size_t)index >= NR_PROFILES ? NULL : profile_table[index].name;
}

int pyksm_profile_features(const char *name, uint64_t *features)
{
	const struct named *profile = name ? find_profile(name) : NULL;

	if (!profile || !features)
		return -EINVAL;
	*features = profile->mask;
	return 0;
}

uint64_t pyksm_features(const struct pyksm *m)
{
	return m ? m->features : 0;
}
