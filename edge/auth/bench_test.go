package auth

import (
	"testing"
	"time"
)

// The path of every connect: goal 6 µs for HS256.
func BenchmarkVerify(b *testing.B) {
	for _, key := range testKeys(b) {
		b.Run(key.Alg, func(b *testing.B) {
			v, err := New(b.Context(), Config{Keys: []Key{key}})
			if err != nil {
				b.Fatal(err)
			}
			now := time.Now()
			token, err := Sign(key, Claims{User: "alice", App: "shop", Device: "d-9", ID: "01J9ZQ7C0000000000000000",
				Issued: now, Expires: now.Add(time.Hour)})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := v.Verify(b.Context(), token); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
