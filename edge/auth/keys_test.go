package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"github.com/MicahParks/jwkset"
	"slices"
	"strings"
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

func publicPEM(t testing.TB, k Key) []byte {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(k.verify)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

func otherES(t testing.TB) Key {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	k, err := newKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// jwkJSON is the public JWK of k, or the symmetric one.
func jwkJSON(t testing.TB, k Key, kid string) string {
	t.Helper()
	jwk, err := jwkset.NewJWKFromKey(k.verify, jwkset.JWKOptions{
		Marshal:  jwkset.JWKMarshalOptions{Private: k.Alg == HS256},
		Metadata: jwkset.JWKMetadataOptions{KID: kid, ALG: jwkset.ALG(k.Alg)},
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := json.Marshal(jwk.Marshal())
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestParseKeys(t *testing.T) {
	keys := testKeys(t)
	pkcs8 := func(k Key) string {
		der, err := x509.MarshalPKCS8PrivateKey(k.sign)
		if err != nil {
			t.Fatal(err)
		}
		return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	}
	weak, err := rsa.GenerateKey(rand.Reader, 1024)
	if err != nil {
		t.Fatal(err)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	jwks := `{"keys":[` + jwkJSON(t, keys[0], "h") + `,` + jwkJSON(t, keys[1], "r") + `,{"kty":"OKP","crv":"Ed448","x":"AA"}]}`
	cases := map[string]struct {
		setting string
		want    []string // algorithm and kid of each key; nil refuses
	}{
		"secret":         {testSecret, []string{"HS256 "}},
		"RS public":      {string(publicPEM(t, keys[1])), []string{"RS256 "}},
		"ES public":      {string(publicPEM(t, keys[2])), []string{"ES256 "}},
		"EdDSA private":  {pkcs8(keys[3]), []string{"EdDSA "}},
		"two PEM blocks": {pkcs8(keys[1]) + string(publicPEM(t, keys[2])), []string{"RS256 ", "ES256 "}},
		"JWK set":        {jwks, []string{"HS256 h", "RS256 r"}},
		"one JWK":        {jwkJSON(t, keys[2], "e"), []string{"ES256 e"}},
		"empty":          {"", nil},
		"no such file":   {"file:/nonexistent", nil},
		"cut PEM":        {"-----BEGIN PUBLIC KEY-----\nAAAA", nil},
		"a CSR":          {"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", nil},
		"weak RSA":       {pkcs8(Key{sign: weak}), nil},
		"P-384":          {pkcs8(Key{sign: p384}), nil},
		"JSON":           {`{"a":1}`, nil},
		"empty set":      {`{"keys":[]}`, nil},
		"enc key":        {`{"keys":[` + strings.Replace(jwkJSON(t, keys[2], "e"), `"kty"`, `"use":"enc","kty"`, 1) + `]}`, nil},
		"alg of another": {`{"keys":[` + strings.Replace(jwkJSON(t, keys[2], "e"), `"ES256"`, `"ES384"`, 1) + `]}`, nil},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := ParseKeys(c.setting)
			if c.want == nil {
				if err == nil {
					t.Fatalf("accepted as %+v", got)
				}
				return
			}
			var names []string
			for _, k := range got {
				names = append(names, k.Alg+" "+k.ID)
			}
			if err != nil || !slices.Equal(names, c.want) {
				t.Fatalf("%v, %v; want %v", names, err, c.want)
			}
		})
	}
}
