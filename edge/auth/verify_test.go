package auth

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"muster/clients/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Unix(1_800_000_000, 0)

// mint signs any header and payload, sound or not.
func mint(t testing.TB, key Key, head, payload string) string {
	t.Helper()
	enc := base64.RawURLEncoding
	signed := enc.EncodeToString([]byte(head)) + "." + enc.EncodeToString([]byte(payload))
	sig, err := methods[key.Alg].Sign(signed, key.sign)
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + enc.EncodeToString(sig)
}

func verifier(t testing.TB, cfg Config) *Verifier {
	t.Helper()
	if cfg.Now == nil {
		cfg.Now = func() time.Time { return now }
	}
	v, err := New(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func wantReason(t *testing.T, err error, want Reason, message string) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want an *Error with reason %s", err, want)
	}
	if e.Reason != want || !strings.Contains(e.Message, message) {
		t.Fatalf("refused as %s: %q, want %s: …%s…", e.Reason, e.Message, want, message)
	}
}

const hs256 = `{"alg":"HS256","typ":"JWT"}`

func exp(d time.Duration) string { return fmt.Sprint(now.Add(d).Unix()) }

func TestClaims(t *testing.T) {
	key := Secret(testSecret)
	cases := map[string]struct {
		payload string
		want    Reason // "" accepts
		message string
	}{
		"sound":                {`{"sub":"alice","exp":` + exp(time.Hour) + `}`, "", ""},
		"unknown claims":       {`{"sub":"alice","exp":` + exp(time.Hour) + `,"name":"A","x":{"sub":"bob"}}`, "", ""},
		"spaces and escapes":   {` { "s\u0075b" : "\u0061lice" , "exp" : ` + exp(time.Hour) + ` } `, "", ""},
		"float dates":          {`{"sub":"alice","exp":` + exp(time.Hour) + `.75,"iat":1.7e9}`, "", ""},
		"expired":              {`{"sub":"alice","exp":` + exp(-time.Minute) + `}`, Expired, "expired at 2027-01-15T07:59:00Z"},
		"expired 4 s ago":      {`{"sub":"alice","exp":` + exp(-4*time.Second) + `}`, "", ""},
		"expired 5 s ago":      {`{"sub":"alice","exp":` + exp(-5*time.Second) + `}`, Expired, ""},
		"not yet valid":        {`{"sub":"alice","exp":` + exp(time.Hour) + `,"nbf":` + exp(time.Minute) + `}`, NotYet, "nbf"},
		"valid in 5 s":         {`{"sub":"alice","exp":` + exp(time.Hour) + `,"nbf":` + exp(5*time.Second) + `}`, "", ""},
		"valid in 6 s":         {`{"sub":"alice","exp":` + exp(time.Hour) + `,"nbf":` + exp(6*time.Second) + `}`, NotYet, "nbf"},
		"issued in the future": {`{"sub":"alice","exp":` + exp(time.Hour) + `,"iat":` + exp(time.Minute) + `}`, NotYet, "iat"},
		"no exp":               {`{"sub":"alice"}`, NoExpiry, "exp"},
		"exp is a string":      {`{"sub":"alice","exp":"` + exp(time.Hour) + `"}`, BadClaim, "exp"},
		"exp is negative":      {`{"sub":"alice","exp":-1}`, BadClaim, "exp"},
		"exp is huge":          {`{"sub":"alice","exp":1e300}`, BadClaim, "exp"},
		"exp in milliseconds":  {`{"sub":"alice","exp":1800000000000}`, BadClaim, "seconds"},
		"exp null":             {`{"sub":"alice","exp":null}`, BadClaim, "exp"},
		"no sub":               {`{"exp":` + exp(time.Hour) + `}`, BadClaim, "sub"},
		"SUB is not sub":       {`{"SUB":"alice","exp":` + exp(time.Hour) + `}`, BadClaim, "sub"},
		"empty sub":            {`{"sub":"","exp":` + exp(time.Hour) + `}`, BadClaim, "sub"},
		"number sub":           {`{"sub":7,"exp":` + exp(time.Hour) + `}`, BadClaim, "sub"},
		"sub with a slash":     {`{"sub":"a/b","exp":` + exp(time.Hour) + `}`, BadClaim, "sub"},
		"sub with a NUL":       {`{"sub":"a\u0000","exp":` + exp(time.Hour) + `}`, BadClaim, "sub"},
		"sub of 129 bytes":     {`{"sub":"` + strings.Repeat("a", 129) + `","exp":` + exp(time.Hour) + `}`, BadClaim, "sub"},
		"sub twice":            {`{"sub":"alice","sub":"bob","exp":` + exp(time.Hour) + `}`, BadClaim, "sub is given twice"},
		"sub twice, escaped":   {`{"sub":"alice","\u0073ub":"bob","exp":` + exp(time.Hour) + `}`, BadClaim, "sub is given twice"},
		"exp twice":            {`{"sub":"alice","exp":` + exp(time.Hour) + `,"exp":9e9}`, BadClaim, "exp is given twice"},
		"bad app":              {`{"sub":"alice","app":"a b","exp":` + exp(time.Hour) + `}`, BadClaim, "app"},
		"empty app":            {`{"sub":"alice","app":"","exp":` + exp(time.Hour) + `}`, BadClaim, "app"},
		"bad device":           {`{"sub":"alice","dev":"é","exp":` + exp(time.Hour) + `}`, BadClaim, "dev"},
		"caps null":            {`{"sub":"alice","caps":null,"exp":` + exp(time.Hour) + `}`, BadClaim, "caps"},
		"caps of numbers":      {`{"sub":"alice","caps":[1],"exp":` + exp(time.Hour) + `}`, BadClaim, "caps"},
		"bad watch":            {`{"sub":"alice","watch":["bob","b b"],"exp":` + exp(time.Hour) + `}`, BadClaim, "watch: entry 1"},
		"too many rooms":       {`{"sub":"alice","rooms":["r"` + strings.Repeat(`,"r"`, 100) + `],"exp":` + exp(time.Hour) + `}`, BadClaim, "rooms"},
		"info of 1025 bytes":   {`{"sub":"alice","info":"` + strings.Repeat("x", 1023) + `","exp":` + exp(time.Hour) + `}`, BadClaim, "info"},
		"info of 1024 bytes":   {`{"sub":"alice","info":"` + strings.Repeat("x", 1022) + `","exp":` + exp(time.Hour) + `}`, "", ""},
		"empty jti":            {`{"sub":"alice","jti":"","exp":` + exp(time.Hour) + `}`, BadClaim, "jti"},
		"audience unasked":     {`{"sub":"alice","aud":"web","exp":` + exp(time.Hour) + `}`, Audience, "none configured"},
		"aud is a number":      {`{"sub":"alice","aud":1,"exp":` + exp(time.Hour) + `}`, BadClaim, "aud"},
		"payload is a list":    {`[]`, Malformed, "payload"},
		"payload is cut":       {`{"sub":"alice"`, Malformed, "payload"},
		"payload is empty":     {``, Malformed, "payload"},
		"payload not UTF-8":    {"{\"sub\":\"alice\",\"x\":\"\xff\"}", Malformed, "payload"},
		"two payloads":         {`{"sub":"alice"}{"sub":"bob"}`, Malformed, "payload"},
	}
	v := verifier(t, Config{Keys: []Key{key}})
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			got, err := v.Verify(t.Context(), mint(t, key, hs256, c.payload))
			if c.want != "" {
				wantReason(t, err, c.want, c.message)
				return
			}
			if err != nil || got.User != "alice" || got.App != DefaultApp {
				t.Fatalf("%+v, %v; want alice of the default app", got, err)
			}
		})
	}
}

func TestAttacks(t *testing.T) {
	keys := testKeys(t)
	hs, rs, es, ed := keys[0], keys[1], keys[2], keys[3]
	good := `{"sub":"alice","exp":` + exp(time.Hour) + `}`
	enc := base64.RawURLEncoding.EncodeToString
	fresh := mint(t, hs, hs256, good)
	named := func(k Key, kid string) Key { k.ID = kid; return k }
	// The classic: the public RSA key, which everybody has, used as an HMAC secret.
	confused := Secret(string(publicPEM(t, rs)))

	cases := map[string]struct {
		keys  []Key
		token string
		want  Reason
	}{
		"alg none":                 {[]Key{hs}, enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(good)) + ".", Unsigned},
		"alg None with signature":  {[]Key{hs}, mint(t, hs, `{"alg":"None"}`, good), Unsigned},
		"signature cut off":        {[]Key{hs}, fresh[:strings.LastIndex(fresh, ".")+1], Unsigned},
		"signature missing":        {[]Key{hs}, fresh[:strings.LastIndex(fresh, ".")], Malformed},
		"confused: HS by RSA key":  {[]Key{rs}, mint(t, confused, hs256, good), Algorithm},
		"HS token, RS256 server":   {[]Key{rs}, fresh, Algorithm},
		"RS token, HS256 server":   {[]Key{hs}, mint(t, rs, `{"alg":"RS256"}`, good), Algorithm},
		"RS signature, alg HS256":  {[]Key{hs, rs}, mint(t, rs, hs256, good), Signature},
		"HS signature, alg RS256":  {[]Key{hs, rs}, mint(t, hs, `{"alg":"RS256"}`, good), Signature},
		"HS384":                    {[]Key{hs}, mint(t, hs, `{"alg":"HS384"}`, good), Algorithm},
		"PS256":                    {[]Key{rs}, mint(t, rs, `{"alg":"PS256"}`, good), Algorithm},
		"lower-case alg":           {[]Key{hs}, mint(t, hs, `{"alg":"hs256"}`, good), Algorithm},
		"no alg":                   {[]Key{hs}, mint(t, hs, `{"typ":"JWT"}`, good), Malformed},
		"alg twice":                {[]Key{hs}, mint(t, hs, `{"alg":"none","alg":"HS256"}`, good), Malformed},
		"alg is a number":          {[]Key{hs}, mint(t, hs, `{"alg":256}`, good), Malformed},
		"wrong secret":             {[]Key{hs}, mint(t, Secret(strings.Repeat("x", 32)), hs256, good), Signature},
		"wrong kid":                {[]Key{named(hs, "a")}, mint(t, hs, `{"alg":"HS256","kid":"b"}`, good), UnknownKey},
		"other key's kid":          {[]Key{named(hs, "a"), named(Secret(strings.Repeat("x", 32)), "b")}, mint(t, hs, `{"alg":"HS256","kid":"b"}`, good), Signature},
		"kid is a path":            {[]Key{named(hs, "a")}, mint(t, hs, `{"alg":"HS256","kid":"../../dev/null"}`, good), UnknownKey},
		"unknown name twice":       {[]Key{hs}, mint(t, hs, `{"alg":"HS256","x":1,"x":2}`, good), Malformed},
		"kid is a number":          {[]Key{hs}, mint(t, hs, `{"alg":"HS256","kid":1}`, good), Malformed},
		"kid null":                 {[]Key{hs}, mint(t, hs, `{"alg":"HS256","kid":null}`, good), Malformed},
		"header null":              {[]Key{hs}, mint(t, hs, `null`, good), Malformed},
		"crit":                     {[]Key{hs}, mint(t, hs, `{"alg":"HS256","crit":["b64"],"b64":false}`, good), Malformed},
		"ES key of another":        {[]Key{es}, mint(t, otherES(t), `{"alg":"ES256"}`, good), Signature},
		"EdDSA signature flipped":  {[]Key{ed}, flip(mint(t, ed, `{"alg":"EdDSA"}`, good)), Signature},
		"payload swapped":          {[]Key{hs}, swap(fresh, `{"sub":"root","exp":9999999999}`), Signature},
		"empty":                    {[]Key{hs}, "", Malformed},
		"dots":                     {[]Key{hs}, "..", Malformed},
		"encrypted":                {[]Key{hs}, "a.b.c.d.e", Malformed},
		"padding":                  {[]Key{hs}, fresh + "=", Malformed},
		"base64, not base64url":    {[]Key{hs}, mint(t, hs, hs256, good) + "+", Malformed},
		"space before":             {[]Key{hs}, " " + fresh, Malformed},
		"header is a list":         {[]Key{hs}, mint(t, hs, `["HS256"]`, good), Malformed},
		"huge":                     {[]Key{hs}, mint(t, hs, hs256, `{"sub":"alice","x":"`+strings.Repeat("x", 6200)+`"}`), TooLarge},
		"huge garbage":             {[]Key{hs}, strings.Repeat(".", 1<<20), TooLarge},
		"key in the header (jwk)":  {[]Key{hs}, mint(t, es, `{"alg":"ES256","jwk":{"kty":"EC"}}`, good), Algorithm},
		"key by a URL (jku, none)": {[]Key{hs}, mint(t, rs, `{"alg":"RS256","jku":"https://evil.example/k"}`, good), Algorithm},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			v := verifier(t, Config{Keys: c.keys})
			if _, err := v.Verify(t.Context(), fresh); err != nil && reflect.DeepEqual(c.keys, []Key{hs}) {
				t.Fatalf("the honest token is refused: %v", err)
			}
			_, err := v.Verify(t.Context(), c.token)
			wantReason(t, err, c.want, "token: ")
		})
	}
}

func flip(token string) string {
	last := strings.LastIndex(token, ".") + 10
	c := byte('A')
	if token[last] == c {
		c = 'B'
	}
	return token[:last] + string(c) + token[last+1:]
}

func swap(token, payload string) string {
	part := strings.Split(token, ".")
	part[1] = base64.RawURLEncoding.EncodeToString([]byte(payload))
	return strings.Join(part, ".")
}

func TestIssuerAndAudience(t *testing.T) {
	key := Secret(testSecret)
	v := verifier(t, Config{Keys: []Key{key}, Issuer: "https://id.example", Audience: "muster"})
	for _, c := range []struct {
		claims string
		want   Reason
	}{
		{`"iss":"https://id.example","aud":"muster"`, ""},
		{`"iss":"https://id.example","aud":["web","muster"]`, ""},
		{`"iss":"https://id.example","aud":["web"]`, Audience},
		{`"iss":"https://id.example","aud":[]`, Audience},
		{`"iss":"https://id.example"`, Audience},
		{`"iss":"https://id.example.evil","aud":"muster"`, Issuer},
		{`"aud":"muster"`, Issuer},
	} {
		_, err := v.Verify(t.Context(), mint(t, key, hs256, `{"sub":"alice","exp":`+exp(time.Hour)+`,`+c.claims+`}`))
		if c.want == "" && err != nil {
			t.Errorf("%s: %v", c.claims, err)
		} else if c.want != "" {
			wantReason(t, err, c.want, "token: ")
		}
	}
}

func TestNoExpiryWhenAllowed(t *testing.T) {
	key := Secret(testSecret)
	v := verifier(t, Config{Keys: []Key{key}, AllowNoExpiry: true})
	if c, err := v.Verify(t.Context(), mint(t, key, hs256, `{"sub":"alice"}`)); err != nil || !c.Expires.IsZero() {
		t.Fatalf("%+v, %v", c, err)
	}
	_, err := v.Verify(t.Context(), mint(t, key, hs256, `null`))
	wantReason(t, err, BadClaim, "sub")
	_, err = v.Verify(t.Context(), mint(t, key, hs256, `{"sub":"alice","exp":1}`))
	wantReason(t, err, Expired, "1970-01-01")
}

// What Sign writes is what Verify reads, for every algorithm.
func TestRoundTrip(t *testing.T) {
	keys := testKeys(t)
	v := verifier(t, Config{Keys: keys, Audience: "muster"})
	want := Claims{
		User: "alice", App: "shop", Device: "d-9", ID: "j1", Issuer: "me", Audience: []string{"muster"},
		Issued: now, From: now, Expires: now.Add(time.Hour), Caps: []string{"watch", "room.*"},
		Info: json.RawMessage(`{"name":"A"}`), Watch: []string{"bob"}, Rooms: []string{"r1"},
	}
	for _, key := range keys {
		token, err := Sign(key, want)
		if err != nil {
			t.Fatal(err)
		}
		got, err := v.Verify(t.Context(), token)
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %+v, %v; want %+v", key.Alg, got, err, want)
		}
	}
}

func TestSignRefuses(t *testing.T) {
	verifyOnly, err := ParseKeys(string(publicPEM(t, testKeys(t)[1])))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(verifyOnly[0], Claims{User: "alice"}); err == nil {
		t.Error("signed with a public key")
	}
	for _, c := range []Claims{{}, {User: "a b"}, {User: "alice", Info: json.RawMessage(`{`)}, {User: "alice", Device: "/"}} {
		if token, err := Sign(Secret(testSecret), c); err == nil {
			t.Errorf("%+v was signed: %s", c, token)
		}
	}
}

func TestAllows(t *testing.T) {
	all := &Claims{}
	some := &Claims{Caps: []string{"watch", "room.*", "*", "stat*"}}
	none := &Claims{Caps: []string{}}
	for _, c := range []struct {
		claims *Claims
		method string
		want   bool
	}{
		{all, "status", true}, {all, "room.enter", true},
		{some, "watch", true}, {some, "room.enter", true}, {some, "status", false}, {some, "room", false}, {some, "refresh", true},
		{none, "watch", false}, {none, "connect", true}, {none, "ping", true}, {none, "bye", true},
	} {
		if got := c.claims.Allows(c.method); got != c.want {
			t.Errorf("caps %v allow %s: %v, want %v", c.claims.Caps, c.method, got, c.want)
		}
	}
}

func TestCodes(t *testing.T) {
	for reason, want := range map[Reason]wire.Code{
		Expired: wire.CodeTokenExpired, Unavailable: wire.CodeNotReady, Malformed: wire.CodeUnauthorized, Audience: wire.CodeUnauthorized,
	} {
		if got := refuse(reason, "x").Code(); got != want {
			t.Errorf("%s: code %d, want %d", reason, got, want)
		}
	}
}

func TestConfigRefused(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no key":       {},
		"zero key":     {Keys: []Key{{}}},
		"short secret": {Keys: []Key{Secret("muster-dev")}},
		"JWKS file":    {JWKSURLs: []string{"file:///etc/passwd"}},
		"JWKS no host": {JWKSURLs: []string{"https:///k"}},
	} {
		if _, err := New(t.Context(), cfg); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := New(t.Context(), Config{Keys: []Key{Secret("muster-dev")}, AllowShortSecret: true}); err != nil {
		t.Errorf("the development key: %v", err)
	}
}

// No input may panic, be accepted unsigned, or be refused without an *Error.
func FuzzVerify(f *testing.F) {
	key := Secret(testSecret)
	v, err := New(context.Background(), Config{Keys: []Key{key}, AllowNoExpiry: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(hs256, `{"sub":"alice","exp":1.5,"aud":["a"],"caps":[],"info":{"a":[1,"\"]"]},"watch":["b"]}`, false)
	f.Add(`{"alg":"none"}`, `{}`, false)
	f.Add(`{"alg":"HS256","kid":"\u0000"}`, `{"sub":"a\\","x":-1e5}`, true)
	f.Fuzz(func(t *testing.T, head, payload string, raw bool) {
		token := head + "." + payload
		if !raw {
			token = mint(t, key, head, payload)
		}
		c, err := v.Verify(t.Context(), token)
		var refused *Error
		switch {
		case err == nil && raw:
			t.Fatalf("accepted %q unsigned", token)
		case err == nil:
			var std struct{ Sub string }
			if json.Unmarshal([]byte(payload), &std) != nil || !wire.ValidID(c.User) || !json.Valid([]byte(`{"sub":"`+c.User+`"}`)) {
				t.Fatalf("accepted %q as %+v", payload, c)
			}
		case !errors.As(err, &refused):
			t.Fatalf("%v is not an *Error", err)
		}
	})
}

func TestParseKeysFromFile(t *testing.T) {
	path := t.TempDir() + "/secret"
	if err := os.WriteFile(path, []byte(testSecret+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys, err := ParseKeys("file:" + path)
	if err != nil || len(keys) != 1 || keys[0].Alg != HS256 || string(keys[0].verify.([]byte)) != testSecret {
		t.Fatalf("%+v, %v", keys, err)
	}
}
