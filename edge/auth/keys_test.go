package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"sync"
	"testing"
)

const testSecret = "0123456789abcdef0123456789abcdef"

var material = sync.OnceValue(func() []any {
	r, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		panic(err)
	}
	e, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	_, d, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		panic(err)
	}
	return []any{[]byte(testSecret), r, e, d}
})

// testKeys returns one signing key per algorithm: HS256, RS256, ES256, EdDSA.
func testKeys(t testing.TB) []Key {
	t.Helper()
	var keys []Key
	for _, m := range material() {
		k, err := newKey(m)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	return keys
}
