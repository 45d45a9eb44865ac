package store

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// authority is a CA of a test.
type authority struct {
	t    testing.TB
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t}
	a.cert, a.key, a.file, _ = a.sign(x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	})
	return a
}

// issue makes a certificate for a server on 127.0.0.1 and for a client, and gives the files.
func (a *authority) issue(name string, until time.Time) (cert, key string) {
	a.t.Helper()
	_, _, cert, key = a.sign(x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotAfter: until, IPAddresses: []net.IP{{127, 0, 0, 1}},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	})
	return cert, key
}

func (a *authority) sign(c x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey, string, string) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<62))
	must(a.t, err)
	c.NotBefore = time.Now().Add(-24 * time.Hour)
	if c.NotAfter.IsZero() {
		c.NotAfter = time.Now().Add(time.Hour)
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = &c, key
	}
	der, err := x509.CreateCertificate(rand.Reader, &c, parent, key.Public(), signer)
	must(a.t, err)
	cert, err := x509.ParseCertificate(der)
	must(a.t, err)
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	must(a.t, err)
	dir := a.t.TempDir()
	files := [2]string{filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")}
	must(a.t, os.WriteFile(files[0], pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	must(a.t, os.WriteFile(files[1], pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), 0o600))
	return cert, key, files[0], files[1]
}

// secure is a store with TLS that wants certificates of the CA.
func secure(t testing.TB, ca *authority, cert, key string) *Embedded {
	t.Helper()
	e, err := StartEmbed(t.Context(), EmbedConfig{
		Dir: t.TempDir(), Listen: []string{"https://127.0.0.1:0"}, CA: ca.file, Cert: cert, Key: key, NoSync: true,
	})
	must(t, err)
	t.Cleanup(e.Close)
	return e
}

// trusted is one with a certificate of its own.
func trusted(t testing.TB, ca *authority) *Embedded {
	t.Helper()
	cert, key := ca.issue("store", soon)
	return secure(t, ca, cert, key)
}

var soon = time.Now().Add(time.Hour)

func TestTLSWithTheRightCertificates(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	e := trusted(t, ca)
	cert, key := ca.issue("agent", soon)
	s := openWith(t, Config{Fleet: "x", Endpoints: e.Endpoints(), CA: ca.file, Cert: cert, Key: key})
	_, err := s.EnsureConfig(t.Context(), small())
	must(t, err)
	for _, err := range s.Follow(t.Context()) {
		must(t, err)
		break
	}
}

func TestTLSIsRefusedWithTheReason(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t, "ca"), newAuthority(t, "another")
	e := trusted(t, ca)
	cert, key := ca.issue("agent", soon)
	foreignCert, foreignKey := other.issue("agent", soon)
	for _, test := range []struct {
		name string
		cfg  Config
		want string
	}{
		{"the store's CA is another", Config{CA: other.file, Cert: cert, Key: key}, "x509: certificate signed by unknown authority"},
		{"the store's CA is none of the machine's", Config{Cert: cert, Key: key}, "x509: certificate signed by unknown authority"},
		{"the agent has no certificate", Config{CA: ca.file}, "certificate required (the store wants a certificate of this node: -cert and -key)"},
		{"the agent's CA is another", Config{CA: ca.file, Cert: foreignCert, Key: foreignKey}, "the store refuses this node's certificate"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			cfg := test.cfg
			cfg.Fleet, cfg.Endpoints = "x", e.Endpoints()
			wantRefused(t, openWith(t, cfg), test.want)
		})
	}
}

func TestTLSOfAStoreWhoseCertificateHasExpired(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	storeCert, storeKey := ca.issue("store", soon)
	e := secure(t, ca, storeCert, storeKey)
	// It expires under the running store, which reads the files for each connection.
	oldCert, oldKey := ca.issue("store", time.Now().Add(-time.Hour))
	must(t, os.Rename(oldCert, storeCert))
	must(t, os.Rename(oldKey, storeKey))
	cert, key := ca.issue("agent", soon)
	s := openWith(t, Config{Fleet: "x", Endpoints: e.Endpoints(), CA: ca.file, Cert: cert, Key: key})
	wantRefused(t, s, "certificate has expired")
}

// A certificate that expires under a running agent is found when the next connection is made.
func TestTLSOfAnAgentWhoseCertificateHasExpired(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	e := trusted(t, ca)
	cert, key := ca.issue("agent", soon)
	s := openWith(t, Config{Fleet: "x", Endpoints: e.Endpoints(), CA: ca.file, Cert: cert, Key: key})
	oldCert, oldKey := ca.issue("agent", time.Now().Add(-time.Hour))
	must(t, os.Rename(oldCert, cert))
	must(t, os.Rename(oldKey, key))
	wantRefused(t, s, cert+": expired on ")
	// It is renewed under the running agent.
	newCert, newKey := ca.issue("agent", soon)
	must(t, os.Rename(newCert, cert))
	must(t, os.Rename(newKey, key))
	poll(t, "the new certificate is used", func() bool { _, err := s.Snapshot(t.Context()); return err == nil })
}

// An authority that is renewed under a running agent is believed from the next connection on.
func TestTLSWithAnAuthorityThatIsRenewed(t *testing.T) {
	t.Parallel()
	old, ca := newAuthority(t, "old"), newAuthority(t, "ca")
	e := trusted(t, ca)
	cert, key := ca.issue("agent", soon)
	s := openWith(t, Config{Fleet: "x", Endpoints: e.Endpoints(), CA: old.file, Cert: cert, Key: key})
	wantRefused(t, s, "x509: certificate signed by unknown authority")
	must(t, os.Rename(ca.file, old.file))
	poll(t, "the new authority is believed", func() bool { _, err := s.Snapshot(t.Context()); return err == nil })
	must(t, os.Remove(old.file)) // what is connected stays so
	_, err := s.Snapshot(t.Context())
	must(t, err)
}

// wantRefused wants the reason of a handshake from a call, from Follow, and at once: trying again does not help.
func wantRefused(t testing.TB, s *Store, want string) {
	t.Helper()
	_, err := s.Snapshot(t.Context())
	check := func(err error) {
		t.Helper()
		var handshake *HandshakeError
		if !errors.As(err, &handshake) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v: want a HandshakeError with %q", err, want)
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v: it was tried until the time was up", err)
		}
	}
	check(err)
	for _, err := range s.Follow(t.Context()) {
		check(err)
		break
	}
}

func TestOneSideHasTLSAndTheOtherDoesNot(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	plain, err := StartEmbed(t.Context(), EmbedConfig{Dir: t.TempDir(), NoSync: true})
	must(t, err)
	t.Cleanup(plain.Close)
	for _, test := range []struct{ endpoint, want string }{
		{strings.Replace(plain.Endpoints()[0], "http:", "https:", 1), "does it use TLS?"},
		{strings.Replace(trusted(t, ca).Endpoints()[0], "https:", "http:", 1), "does it want TLS?"},
	} {
		s := openWith(t, Config{Fleet: "x", Endpoints: []string{test.endpoint}})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.Snapshot(ctx); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v: want %q", test.endpoint, err, test.want)
		}
	}
}

func TestOpenRefusesBadInput(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	cert, key := ca.issue("agent", soon)
	oldCert, oldKey := ca.issue("agent", time.Now().Add(-time.Hour))
	garbage := filepath.Join(t.TempDir(), "garbage")
	must(t, os.WriteFile(garbage, []byte("garbage"), 0o600))
	secure := []string{"https://10.0.0.1:2379"}
	for _, test := range []struct {
		name string
		cfg  Config
		want string
		is   error
	}{
		{"no fleet", Config{Endpoints: secure}, "name of a fleet", os.ErrInvalid},
		{"a fleet with a slash", Config{Fleet: "a/b", Endpoints: secure}, "name of a fleet", os.ErrInvalid},
		{"no endpoint", Config{Fleet: "x"}, "no endpoint", os.ErrInvalid},
		{"no scheme", Config{Fleet: "x", Endpoints: []string{"10.0.0.1:2379"}}, `"10.0.0.1:2379"`, os.ErrInvalid},
		{"a host alone", Config{Fleet: "x", Endpoints: []string{"store"}}, `"store": scheme ""`, os.ErrInvalid},
		{"another scheme", Config{Fleet: "x", Endpoints: []string{"ftp://a:1"}}, "want https, http or unix", os.ErrInvalid},
		{"no port", Config{Fleet: "x", Endpoints: []string{"https://a"}}, "want a host and a port", os.ErrInvalid},
		{"port 0", Config{Fleet: "x", Endpoints: []string{"https://a:0"}}, "port 0", os.ErrInvalid},
		{"too big a port", Config{Fleet: "x", Endpoints: []string{"https://a:65536"}}, "want a host and a port", os.ErrInvalid},
		{"a path", Config{Fleet: "x", Endpoints: []string{"https://a:1/b"}}, "want no path", os.ErrInvalid},
		{"a password", Config{Fleet: "x", Endpoints: []string{"https://a:b@c:1"}}, "want a form like", os.ErrInvalid},
		{"a relative socket", Config{Fleet: "x", Endpoints: []string{"unix://a/b"}}, "absolute path", os.ErrInvalid},
		{"http beyond this machine", Config{Fleet: "x", Endpoints: []string{"http://10.0.0.1:2379"}}, "want https, or -insecure", os.ErrInvalid},
		{"http to a name", Config{Fleet: "x", Endpoints: []string{"http://store:2379"}}, "want https, or -insecure", os.ErrInvalid},
		{"TLS and none", Config{Fleet: "x", Endpoints: []string{"https://a:1", "http://127.0.0.1:1"}}, "some with TLS and some without", os.ErrInvalid},
		{"certificates without TLS", Config{Fleet: "x", Endpoints: []string{"http://127.0.0.1:1"}, CA: ca.file}, "no endpoint is https", os.ErrInvalid},
		{"no CA file", Config{Fleet: "x", Endpoints: secure, CA: "/nowhere/ca"}, "/nowhere/ca", os.ErrNotExist},
		{"a CA of garbage", Config{Fleet: "x", Endpoints: secure, CA: garbage}, "no certificate in PEM form", os.ErrInvalid},
		{"no certificate file", Config{Fleet: "x", Endpoints: secure, Cert: "/nowhere/cert", Key: key}, "/nowhere/cert", os.ErrNotExist},
		{"a certificate of garbage", Config{Fleet: "x", Endpoints: secure, Cert: garbage, Key: key}, garbage, os.ErrInvalid},
		{"a certificate without its key", Config{Fleet: "x", Endpoints: secure, Cert: cert}, "want both", os.ErrInvalid},
		{"another certificate's key", Config{Fleet: "x", Endpoints: secure, Cert: cert, Key: oldKey}, "private key does not match", os.ErrInvalid},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			s, err := Open(test.cfg)
			if err == nil {
				s.Close()
				t.Fatal("it opens")
			}
			mustBe(t, err, test.is)
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q: want %q", err, test.want)
			}
		})
	}
	for _, cfg := range []Config{
		{Endpoints: []string{"http://10.0.0.1:2379"}, Insecure: true},
		{Endpoints: []string{"http://localhost:1", "http://[::1]:1", "http://127.0.0.2:1", "unix:///run/x"}},
		{Endpoints: []string{"https://store.example:2379/", "https://10.0.0.1:2379"}, CA: ca.file, Cert: cert, Key: key},
		{Endpoints: secure},
		{Endpoints: secure, Cert: oldCert, Key: oldKey}, // it may be renewed; the handshake says so until then
	} {
		cfg.Fleet = "x"
		s, err := Open(cfg)
		if err != nil {
			t.Errorf("%+v: %v", cfg, err)
			continue
		}
		s.Close()
	}
}
