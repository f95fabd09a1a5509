package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// writePair writes a fresh key pair whose serial number is n, with the files' time set.
func writePair(t *testing.T, cert, key string, n int64, at time.Time) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	write(t, cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), at)
	write(t, key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}), at)
}

func write(t *testing.T, name string, data []byte, at time.Time) {
	t.Helper()
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(name, at, at); err != nil {
		t.Fatal(err)
	}
}

func TestCertificateIsReadAgain(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	now := time.Now()
	writePair(t, cert, key, 1, now.Add(-time.Hour))
	log := slog.New(slog.DiscardHandler)
	config, err := tlsConfig(cert, key, log)
	if err != nil {
		t.Fatal(err)
	}
	c := &certificate{certFile: cert, keyFile: key, log: log}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	c.pair, c.stamp = &pair, c.modified()
	serial := func() int64 {
		t.Helper()
		c.checked = time.Time{} // a second has gone by
		got, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		leaf, err := x509.ParseCertificate(got.Certificate[0])
		if err != nil {
			t.Fatal(err)
		}
		return leaf.SerialNumber.Int64()
	}
	if n := serial(); n != 1 {
		t.Errorf("serial %d", n)
	}
	writePair(t, cert, key, 2, now.Add(-time.Minute))
	if n := serial(); n != 2 {
		t.Errorf("serial %d after the change", n)
	}
	write(t, key, []byte("broken"), now)
	if n := serial(); n != 2 {
		t.Errorf("serial %d after a broken change", n)
	}
	writePair(t, cert, key, 3, now.Add(time.Minute))
	if n := serial(); n != 3 {
		t.Errorf("serial %d after the repair", n)
	}
	if _, err := tlsConfig(cert, filepath.Join(dir, "none"), log); err == nil {
		t.Error("a missing key is accepted")
	}
	if config.MinVersion < tls.VersionTLS12 {
		t.Error("old TLS is allowed")
	}
}
