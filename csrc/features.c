/* SPDX-License-Identifier: MIT */
/* Which kernel a machine is: profiles and features by name. The table is pyksm/features.py. */
#include "internal.h"

struct named {
	const char *name;
	struct pyksm_feature_set set;
};

#define ROW(name, low, high) { name, { { low, high } } },
/* with the features that each has no meaning without */
static const struct named feature_table[] = { PYKSM_FEATURES(ROW) };
/* with the features of each; aliases are rows of their own */
static const struct named profile_table[] = { PYKSM_PROFILES(ROW) };
#undef ROW

#define NR_PROFILES (sizeof(profile_table) / sizeof(profile_table[0]))

_Static_assert(sizeof(feature_table) / sizeof(feature_table[0]) == NR_FEATURES, "a row a feature");

_Static_assert(NR_FEATURES <= 128, "two words of them");

typedef struct pyksm_feature_set set;

static bool is_in(int k, const set *s)
{
	return (s->word[k / 64] >> k % 64) & 1;
}

static set both(set a, set b)
{
	return (set){ { a.word[0] | b.word[0], a.word[1] | b.word[1] } };
}

static set without(set a, set b)
{
	return (set){ { a.word[0] & ~b.word[0], a.word[1] & ~b.word[1] } };
}

static bool is_empty(set a)
{
	return !(a.word[0] | a.word[1]);
}

/* Those of the table's rows that have a number. */
static set known(void)
{
	set ret = { { 0, 0 } };

	for (int k = 0; k < NR_FEATURES; k++)
		ret.word[k / 64] |= 1ull << k % 64;
	return ret;
}

/* The set with all that its members need. */
static set with_needs(set s)
{
	set before;

	do {
		before = s;
		for (int k = 0; k < NR_FEATURES; k++)
			if (is_in(k, &s))
				s = both(s, feature_table[k].set);
	} while (!is_empty(without(s, before)));
	return s;
}

/* The set without those that need one that is not in it. */
static set without_unmet(set s)
{
	set before;

	do {
		before = s;
		for (int k = 0; k < NR_FEATURES; k++)
			if (!is_empty(without(feature_table[k].set, s)))
				s.word[k / 64] &= ~(1ull << k % 64);
	} while (!is_empty(without(before, s)));
	return s;
}

static const struct named *find_profile(const char *name)
{
	for (size_t i = 0; i < NR_PROFILES; i++)
		if (!strcmp(profile_table[i].name, name))
			return &profile_table[i];
	return NULL;
}

/* The features that a configuration asks for; -EINVAL for a name or a bit that nobody knows. */
int features_of(const struct pyksm_config *config, set *features)
{
	const struct named *profile =
		find_profile(config->profile ? config->profile : PYKSM_DEFAULT_PROFILE);

	if (!profile || !is_empty(without(both(config->features, config->features_off), known())))
		return -EINVAL;
	if (config->exact_features)
		*features = config->features;
	else
		*features = with_needs(both(profile->set, config->features));
	*features = without_unmet(without(*features, config->features_off));
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

int pyksm_profile_features(const char *name, set *ret)
{
	const struct named *profile = name ? find_profile(name) : NULL;

	if (!profile || !ret)
		return -EINVAL;
	*ret = profile->set;
	return 0;
}

int pyksm_features(const struct pyksm *m, set *ret)
{
	if (!m || !ret)
		return -EINVAL;
	*ret = m->features;
	return 0;
}
