package stream

import (
	"crypto"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const (
	minSecret = 16                  // bytes
	renewCert = 24 * time.Hour      // a node's certificate is made anew for handshakes after that
	certValid = 30 * 24 * time.Hour // and valid for so long
	certEarly = 24 * time.Hour      // clocks may be so far apart
)

// Keys is what a node proves itself with: a CA that makes the node's certificate, and those that it believes.
type Keys struct {
	ca     *x509.Certificate
	signer crypto.Signer
	roots  *x509.CertPool
}

// derive takes 32 bytes for one purpose from the secret.
func derive(secret []byte, purpose string) ([]byte, error) {
	if len(secret) < minSecret {
		return nil, fmt.Errorf("stream: the cluster secret has %d bytes, at least %d are needed", len(secret), minSecret)
	}
	return hkdf.Key(sha256.New, secret, []byte("muster"), purpose, 32)
}

// GossipKey derives the key of the gossip, 32 bytes, from the cluster's secret of at least 16 bytes.
func GossipKey(secret []byte) ([]byte, error) { return derive(secret, "gossip key 1") }

// NewKeys derives the keys of a cluster from its secret: at least 16 bytes. Every node computes the same CA, to the byte. While a
// secret is replaced, nodes that prove themselves with one of the others are believed too.
func NewKeys(secret []byte, others ...[]byte) (*Keys, error) {
	k, err := keysFrom(secret)
	if err != nil {
		return nil, err
	}
	for _, s := range others {
		other, err := keysFrom(s)
		if err != nil {
			return nil, err
		}
		k.roots.AddCert(other.ca)
	}
	return k, nil
}

func keysFrom(secret []byte) (*Keys, error) {
	seed, err := derive(secret, "node ca 1")
	if err != nil {
		return nil, err
	}
	signer := ed25519.NewKeyFromSeed(seed)
	public := signer.Public().(ed25519.PublicKey)
	id := sha256.Sum256(public)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "muster cluster"}, SubjectKeyId: id[:20],
		NotBefore: time.Unix(0, 0).UTC(), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC),
		IsCA: true, BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, signer)
	if err != nil {
		return nil, err
	}
	ca, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return keysOf(ca, signer), nil
}

// KeysFromCA takes a CA of one's own: its certificate and its private key (PKCS 8) in PEM. The certificates of
// nodes are made from it at their start, as with a secret.
func KeysFromCA(cert, key []byte) (*Keys, error) {
	c, k := block(cert, "CERTIFICATE"), block(key, "PRIVATE KEY")
	if c == nil || k == nil {
		return nil, errors.New("stream: the CA needs a PEM block CERTIFICATE and one PRIVATE KEY (PKCS 8)")
	}
	ca, err := x509.ParseCertificate(c)
	if err != nil {
		return nil, fmt.Errorf("stream: the CA's certificate: %w", err)
	}
	private, err := x509.ParsePKCS8PrivateKey(k)
	if err != nil {
		return nil, fmt.Errorf("stream: the CA's key: %w", err)
	}
	signer, ok := private.(crypto.Signer)
	if !ok {
		return nil, errors.New("stream: the CA's key cannot sign")
	}
	if public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool }); !ok || !public.Equal(ca.PublicKey) {
		return nil, errors.New("stream: the CA's key does not belong to its certificate")
	}
	if !ca.IsCA {
		return nil, errors.New("stream: the certificate is not one of a CA")
	}
	return keysOf(ca, signer), nil
}

func block(data []byte, kind string) []byte {
	for {
		b, rest := pem.Decode(data)
		if b == nil {
			return nil
		}
		if b.Type == kind {
			return b.Bytes
		}
		data = rest
	}
}

func keysOf(ca *x509.Certificate, signer crypto.Signer) *Keys {
	k := &Keys{ca: ca, signer: signer, roots: x509.NewCertPool()}
	k.roots.AddCert(ca)
	return k
}

// identity is what a certificate says: a URI muster:/<cluster>/<node in hex>.
type identity struct {
	cluster string // "": none yet
	node    uint64
}

func (id identity) url() *url.URL {
	return &url.URL{Scheme: "muster", Path: "/" + id.cluster + "/" + strconv.FormatUint(id.node, 16)}
}

func identityOf(c *x509.Certificate) (identity, error) {
	for _, u := range c.URIs {
		at := strings.LastIndexByte(u.Path, '/')
		if u.Scheme != "muster" || at < 0 {
			continue
		}
		node, err := strconv.ParseUint(u.Path[at+1:], 16, 64)
		if err != nil || node == 0 {
			break
		}
		return identity{strings.Trim(u.Path[:at], "/"), node}, nil
	}
	return identity{}, errors.New("the certificate names no node")
}

// certificate makes one for a node, valid for certValid.
func (k *Keys) certificate(id identity, now time.Time) (*tls.Certificate, error) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "muster node"}, URIs: []*url.URL{id.url()},
		NotBefore: now.Add(-certEarly), NotAfter: now.Add(certValid), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, k.ca, public, k.signer)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}, nil
}

// verify checks the other end's certificate, whichever end it is: there are no host names here.
func (k *Keys) verify(cs tls.ConnectionState) error {
	if len(cs.PeerCertificates) == 0 {
		return errors.New("no certificate")
	}
	leaf := cs.PeerCertificates[0]
	if _, err := leaf.Verify(x509.VerifyOptions{Roots: k.roots, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}); err != nil {
		return err
	}
	_, err := identityOf(leaf)
	return err
}
