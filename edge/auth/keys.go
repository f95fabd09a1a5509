package auth

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"
)

// The algorithms that exist here.
const (
	HS256 = "HS256"
	RS256 = "RS256"
	ES256 = "ES256"
	EdDSA = "EdDSA"
)

const (
	minSecret  = 32   // bytes of an HS256 secret (RFC 7518, 3.2)
	minRSABits = 2048 // RFC 7518, 3.3
)

// Key is one key together with the only algorithm it may be used for.
type Key struct {
	ID  string // kid; empty: good for tokens with any kid or none
	Alg string // HS256, RS256, ES256 or EdDSA

	verify any // what the algorithm's Verify takes
	sign   any // what its Sign takes; nil: the key only verifies
}

// CanSign reports whether Sign may be called with the key.
func (k Key) CanSign() bool { return k.sign != nil }

// Short reports whether the key is an HS256 secret of less than 32 bytes, which
// can be guessed from a single token.
func (k Key) Short() bool {
	secret, ok := k.verify.([]byte)
	return ok && len(secret) < minSecret
}

// Secret is an HS256 key.
func Secret(secret string) Key {
	return Key{Alg: HS256, verify: []byte(secret), sign: []byte(secret)}
}

// ParseKeys reads the keys that a setting names: "file:PATH" is a PEM file, a JWK
// or JWK set file, or a file that holds an HS256 secret; a text that begins with
// "-----BEGIN" or "{" is PEM or a JWK set itself; anything else is an HS256 secret.
// PEM may hold public keys, certificates and private keys; a private key can also sign.
func ParseKeys(setting string) ([]Key, error) {
	data := []byte(setting)
	if path, ok := strings.CutPrefix(setting, "file:"); ok {
		var err error
		if data, err = os.ReadFile(path); err != nil {
			return nil, fmt.Errorf("key file: %w", err)
		}
		data = bytes.TrimSpace(data)
	}
	switch {
	case len(data) == 0:
		return nil, errors.New("key is empty")
	case bytes.HasPrefix(data, []byte("-----BEGIN")):
		return parsePEM(data)
	case data[0] == '{':
		keys, skipped, err := parseJWKS(data)
		if err == nil && len(keys) == 0 {
			err = errors.Join(append([]error{errors.New("JWK set: no usable key")}, skipped...)...)
		}
		return keys, err
	}
	return []Key{Secret(string(data))}, nil
}

func parsePEM(data []byte) ([]Key, error) {
	var keys []Key
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		material, err := parseBlock(block)
		if err != nil {
			return nil, fmt.Errorf("PEM block %q: %w", block.Type, err)
		}
		if material == nil {
			continue
		}
		key, err := newKey(material)
		if err != nil {
			return nil, fmt.Errorf("PEM block %q: %w", block.Type, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, errors.New("PEM: no key found")
	}
	return keys, nil
}

func parseBlock(block *pem.Block) (any, error) {
	switch block.Type {
	case "CERTIFICATE":
		cert, err := jwkset.LoadCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		return cert.PublicKey, nil
	case "EC PARAMETERS": // openssl writes it before the key
		return nil, nil
	}
	key, err := jwkset.LoadX509KeyInfer(block)
	if errors.Is(err, jwkset.ErrX509Infer) {
		return nil, errors.New("want a public key, a certificate or a private key")
	}
	return key, err
}

// newKey pins the algorithm that the material is good for.
func newKey(material any) (Key, error) {
	k := Key{verify: material}
	if private, ok := material.(crypto.Signer); ok {
		k.verify, k.sign = private.Public(), private
	}
	switch public := k.verify.(type) {
	case []byte:
		k.Alg, k.sign = HS256, public
		if len(public) == 0 {
			return Key{}, errors.New("empty secret")
		}
	case *rsa.PublicKey:
		k.Alg = RS256
		if bits := public.N.BitLen(); bits < minRSABits {
			return Key{}, fmt.Errorf("RSA key of %d bits: want at least %d", bits, minRSABits)
		}
	case *ecdsa.PublicKey:
		k.Alg = ES256
		if public.Curve != elliptic.P256() {
			return Key{}, fmt.Errorf("curve %s: only P-256 (ES256) is supported", public.Params().Name)
		}
	case ed25519.PublicKey:
		k.Alg = EdDSA
	default:
		return Key{}, fmt.Errorf("%T is not supported: want RSA, P-256 or Ed25519", material)
	}
	return k, nil
}

// parseJWKS reads a JWK set or a single JWK. Keys that cannot be used are skipped and said.
func parseJWKS(data []byte) (keys []Key, skipped []error, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
		Kty  string            `json:"kty"`
	}
	if err := json.Unmarshal(data, &set); err != nil {
		return nil, nil, fmt.Errorf("JWK set: %w", err)
	}
	if set.Kty != "" {
		set.Keys = []json.RawMessage{data}
	}
	var list []jwkset.JWK
	for i, raw := range set.Keys {
		jwk, err := jwkset.NewJWKFromRawJSON(raw, jwkset.JWKMarshalOptions{Private: true}, jwkset.JWKValidateOptions{})
		if err != nil {
			skipped = append(skipped, fmt.Errorf("key %d: %w", i, err))
			continue
		}
		list = append(list, jwk)
	}
	keys, more := usable(list, true)
	return keys, append(skipped, more...), nil
}

// usable returns the keys that tokens can be checked with here, and why the others
// are none. secrets: symmetric keys are allowed, which they never are in a set
// fetched from a URL.
func usable(list []jwkset.JWK, secrets bool) (keys []Key, skipped []error) {
	for _, jwk := range list {
		key, err := fromJWK(jwk)
		if err == nil && key.Alg == HS256 && !secrets {
			err = errors.New("a fetched set may not hold symmetric keys")
		}
		if err != nil {
			skipped = append(skipped, fmt.Errorf("kid %.64q: %w", jwk.Marshal().KID, err))
			continue
		}
		keys = append(keys, key)
	}
	return keys, skipped
}

func fromJWK(jwk jwkset.JWK) (Key, error) {
	meta := jwk.Marshal()
	if meta.USE != "" && meta.USE != jwkset.UseSig {
		return Key{}, fmt.Errorf("use %q is not for signatures", meta.USE)
	}
	key, err := newKey(jwk.Key())
	if err != nil {
		return Key{}, err
	}
	if alg := meta.ALG.String(); alg != "" && alg != key.Alg {
		return Key{}, fmt.Errorf("alg %q is not supported: want %s for such a key", alg, key.Alg)
	}
	key.ID = meta.KID
	return key, nil
}

// methods are golang-jwt's implementations of the algorithms that exist here.
var methods = map[string]jwt.SigningMethod{
	HS256: jwt.SigningMethodHS256,
	RS256: jwt.SigningMethodRS256,
	ES256: jwt.SigningMethodES256,
	EdDSA: jwt.SigningMethodEdDSA,
}
