// SPDX-License-Identifier: Apache-2.0
// OpenSSL's assembly, written by Perl: RBP for anything, stacks aligned by hand,
// and call frame information with expressions such as *(rsp + 8 + r9 * 8) + 8.
// Truth: main → run → unit_A → functions of libcrypto only, for each algorithm A.
// There are no headers here: the prototypes are those of OpenSSL 3.0.
#include <string.h>

#include "truth.h"

typedef struct cipher_ctx EVP_CIPHER_CTX;
typedef struct cipher EVP_CIPHER;
typedef struct digest_ctx EVP_MD_CTX;
typedef struct digest EVP_MD;
typedef struct key EVP_PKEY;
typedef struct key_ctx EVP_PKEY_CTX;

EVP_CIPHER_CTX *EVP_CIPHER_CTX_new(void);
const EVP_CIPHER *EVP_aes_128_cbc(void), *EVP_aes_256_gcm(void), *EVP_chacha20_poly1305(void);
int EVP_EncryptInit_ex(EVP_CIPHER_CTX *, const EVP_CIPHER *, void *, const unsigned char *key, const unsigned char *iv);
int EVP_EncryptUpdate(EVP_CIPHER_CTX *, unsigned char *out, int *outl, const unsigned char *in, int inl);
const EVP_MD *EVP_sha256(void);
int EVP_Digest(const void *data, size_t count, unsigned char *md, unsigned *size, const EVP_MD *, void *);
EVP_MD_CTX *EVP_MD_CTX_new(void);
int EVP_DigestSignInit(EVP_MD_CTX *, EVP_PKEY_CTX **, const EVP_MD *, void *, EVP_PKEY *);
int EVP_DigestSign(EVP_MD_CTX *, unsigned char *sig, size_t *siglen, const unsigned char *tbs, size_t tbslen);
EVP_PKEY *EVP_PKEY_Q_keygen(void *libctx, const char *propq, const char *type, ...);
EVP_PKEY_CTX *EVP_PKEY_CTX_new(EVP_PKEY *, void *);
int EVP_PKEY_derive_init(EVP_PKEY_CTX *), EVP_PKEY_derive_set_peer(EVP_PKEY_CTX *, EVP_PKEY *);
int EVP_PKEY_derive(EVP_PKEY_CTX *, unsigned char *key, size_t *keylen);

static uint64_t deadline;
static struct rng rng = { 88172645463325252ULL };
static unsigned char in[16384], out[16384 + 64];
static const unsigned char key[32], iv[16];
static EVP_CIPHER_CTX *cbc, *gcm, *chacha;
static EVP_PKEY *rsa, *p256;
static EVP_PKEY_CTX *x25519;

static void must(int ok)
{
	if (ok != 1) {
		fputs("libcrypto failed\n", stderr);
		exit(1);
	}
}

#define UNIT(name, CALL)                                                       \
	KEEP void unit_##name(void)                                            \
	{                                                                      \
		uint64_t want = unit_ns(&rng), start = thread_ns();            \
                                                                               \
		do {                                                           \
			CALL;                                                  \
		} while (thread_ns() - start < want);                          \
	}

static inline __attribute__((always_inline)) void encrypt(EVP_CIPHER_CTX *ctx)
{
	int n;

	for (int i = 0; i < 20; i++)
		must(EVP_EncryptUpdate(ctx, out, &n, in, sizeof(in)));
}

static inline __attribute__((always_inline)) void digest(void)
{
	for (int i = 0; i < 10; i++)
		must(EVP_Digest(in, sizeof(in), out, NULL, EVP_sha256(), NULL));
}

static inline __attribute__((always_inline)) void sign(EVP_PKEY *with)
{
	static EVP_MD_CTX *ctx;
	size_t n = sizeof(out);

	if (!ctx)
		ctx = EVP_MD_CTX_new();
	must(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, with));
	must(EVP_DigestSign(ctx, out, &n, in, 64));
}

static inline __attribute__((always_inline)) void derive(void)
{
	size_t n = sizeof(out);

	for (int i = 0; i < 10; i++)
		must(EVP_PKEY_derive(x25519, out, &n));
}

UNIT(aes_128_cbc, encrypt(cbc))
UNIT(aes_256_gcm, encrypt(gcm))
UNIT(chacha20_poly1305, encrypt(chacha))
UNIT(sha256, digest())
UNIT(rsa2048, sign(rsa))
UNIT(ecdsap256, sign(p256))
UNIT(x25519, derive())

static const struct {
	const char *name;
	void (*unit)(void);
} units[] = {
#define ENTRY(name) { #name, unit_##name }
	ENTRY(aes_128_cbc), ENTRY(aes_256_gcm), ENTRY(chacha20_poly1305), ENTRY(sha256),
	ENTRY(rsa2048),	    ENTRY(ecdsap256),	ENTRY(x25519),
};
#define UNITS (sizeof(units) / sizeof(units[0]))

static struct truth parts[UNITS + 1]; /* the last is make_keys */

KEEP void run(void)
{
	while (!expired(deadline)) {
		size_t which = rng_next(&rng) % UNITS;
		uint64_t start = thread_ns();

		units[which].unit();
		truth_add(&parts[which], thread_ns() - start);
	}
}

static EVP_CIPHER_CTX *cipher(const EVP_CIPHER *with)
{
	EVP_CIPHER_CTX *ctx = EVP_CIPHER_CTX_new();

	must(EVP_EncryptInit_ex(ctx, with, NULL, key, iv));
	return ctx;
}

KEEP void make_keys(void)
{
	EVP_PKEY *mine = EVP_PKEY_Q_keygen(NULL, NULL, "X25519"), *theirs = EVP_PKEY_Q_keygen(NULL, NULL, "X25519");

	cbc = cipher(EVP_aes_128_cbc());
	gcm = cipher(EVP_aes_256_gcm());
	chacha = cipher(EVP_chacha20_poly1305());
	rsa = EVP_PKEY_Q_keygen(NULL, NULL, "RSA", (size_t)2048);
	p256 = EVP_PKEY_Q_keygen(NULL, NULL, "EC", "P-256");
	x25519 = EVP_PKEY_CTX_new(mine, NULL);
	must(rsa && p256 && x25519);
	must(EVP_PKEY_derive_init(x25519));
	must(EVP_PKEY_derive_set_peer(x25519, theirs));
	truth_add(&parts[UNITS], thread_ns());
}

KEEP int main(int argc, char **argv)
{
	char *present = "";

	make_keys(); /* takes random time */
	deadline = deadline_ns(argc, argv);
	run();
	for (size_t i = 0; i < UNITS; i++) {
		parts[i].function = format("unit_%s", units[i].name);
		parts[i].under = 1;
		parts[i].chain = format("[\"_start\",\"...\",\"main\",\"run\",\"unit_%s\",\"...\"]", units[i].name);
		if (asprintf(&present, "%s%s[\"_start\",\"...\",\"main\",\"run\",\"unit_%s\",\"?@libcrypto.so.3\",\"...@libcrypto.so.3\"]",
			     present, i ? "," : "", units[i].name) < 0)
			exit(1);
	}
	parts[UNITS].function = "make_keys";
	parts[UNITS].under = 1;
	parts[UNITS].chain = "[\"_start\",\"...\",\"main\",\"make_keys\",\"...\"]";
	report(parts, UNITS + 1, format("[%s]", present));
	return 0;
}
