//go:build linux

package command

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/lab"
	"github.com/boxwire/boxwire/examples/fleet/internal/lab/labtest"
)

// authority is a CA with its files in a directory.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T, name string) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.sign("ca", &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour),
	})
	return a
}

func (a *authority) file(name string) string { return filepath.Join(a.dir, name) }

// issue makes name.pem and name.key, for a server on the addresses and for a client.
func (a *authority) issue(name string, until time.Duration, addrs ...string) (flags []string) {
	a.t.Helper()
	c := &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, KeyUsage: x509.KeyUsageDigitalSignature, NotAfter: time.Now().Add(until),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, addr := range addrs {
		c.IPAddresses = append(c.IPAddresses, net.ParseIP(addr))
	}
	a.sign(name, c)
	return []string{"-ca", a.file("ca.pem"), "-cert", a.file(name + ".pem"), "-key", a.file(name + ".key")}
}

func (a *authority) sign(name string, c *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key := value(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(a.t)
	c.SerialNumber = value(rand.Int(rand.Reader, big.NewInt(1<<62)))(a.t)
	c.NotBefore = time.Now().Add(-24 * time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	der := value(x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer))(a.t)
	for suffix, block := range map[string]*pem.Block{
		".pem": {Type: "CERTIFICATE", Bytes: der},
		".key": {Type: "PRIVATE KEY", Bytes: value(x509.MarshalPKCS8PrivateKey(key))(a.t)},
	} { // as certbot does: a new file in place of the old one
		must(a.t, os.WriteFile(a.file(name+suffix+".new"), pem.EncodeToMemory(block), 0o600))
		must(a.t, os.Rename(a.file(name+suffix+".new"), a.file(name+suffix)))
	}
	return value(x509.ParseCertificate(der))(a.t), key
}

// Agents join by https with certificates of one authority. The first has the store in it.
func TestTLS(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{2}})
	ca, other := newAuthority(t, "ca"), newAuthority(t, "other")
	url := "https://198.18.0.2:2379"
	storeCert := ca.issue("store", time.Hour, "198.18.0.2")
	a := start(t, l.Hosts[0], append([]string{"-store", "embed", "-listen", url}, storeCert...)...)
	a.ready(0)
	b := start(t, l.Hosts[1], append([]string{"-store", url}, ca.issue("b", time.Hour)...)...)
	b.ready(1)
	a.ready(1)

	// What is wrong with a certificate is in the log and on /ready, and the agent waits until it is mended on the disk.
	none := []string{"-ca", ca.file("ca.pem")}
	foreign := other.issue("foreign", time.Hour)
	foreign[1] = ca.file("ca.pem")
	unbelieving := ca.issue("unbelieving", time.Hour)
	unbelieving[1] = other.file("ca.pem")
	for _, test := range []struct {
		name  string
		flags []string
		want  string
		mend  func()
	}{
		{"the store's authority is another", unbelieving, "x509: certificate signed by unknown authority", func() {
			must(t, os.WriteFile(other.file("ca.pem"), value(os.ReadFile(ca.file("ca.pem")))(t), 0o600))
		}},
		{"no certificate", none, "certificate required (the store wants a certificate of this node: -cert and -key)", nil},
		{"a certificate of another authority", foreign, "the store refuses this node's certificate", func() {
			ca.issue("mended", time.Hour)
			for _, suffix := range []string{".pem", ".key"} {
				must(t, os.Rename(ca.file("mended"+suffix), other.file("foreign"+suffix)))
			}
		}},
		{"a certificate that has expired", ca.issue("old", -time.Hour), "old.pem: expired on ", func() { ca.issue("old", time.Hour) }},
	} {
		h := value(l.AddHost(t.Context(), 0))(t)
		t.Run(test.name, func(t *testing.T) {
			before := kernel(t, h.NS)
			n := start(t, h, append([]string{"-store", url}, test.flags...)...)
			n.says(503, "the node has no prefix yet; the store is away: ", "TLS handshake with 198.18.0.2:2379: ", test.want)
			n.prints(test.want)
			if after := kernel(t, h.NS); after != before {
				t.Errorf("the kernel has\n%s\nand had\n%s", after, before)
			}
			args := append([]string{"forget", "-name", "lab", "-store", url}, test.flags...)
			code, out := fleet(t, h, append(args, "nobody")...)
			wantError(t, "forget", code, 1, out, "TLS handshake with 198.18.0.2:2379: ", test.want)
			if test.mend != nil {
				test.mend()
				n.says(200, "ready")
			}
			n.stop()
		})
	}
	code, out := fleet(t, l.Hosts[1], append([]string{"forget", "-name", "lab", "-store", url}, append(ca.issue("b", time.Hour), "nobody")...)...)
	wantError(t, "forget", code, 1, out, "there is no such node")

	// A store whose own certificate is of another name, or has expired. It reads the files for each connection.
	for want, cert := range map[string]func(){
		"x509: certificate is valid for 192.0.2.99, not 198.18.0.2": func() { ca.issue("store", time.Hour, "192.0.2.99") },
		"x509: certificate has expired":                             func() { ca.issue("store", -time.Hour, "198.18.0.2") },
	} {
		cert()
		n := start(t, value(l.AddHost(t.Context(), 0))(t), append([]string{"-store", url}, ca.issue("c", time.Hour)...)...)
		n.says(503, "TLS handshake with 198.18.0.2:2379: ", want)
		ca.issue("store", time.Hour, "198.18.0.2")
		n.says(200, "ready")
		n.stop()
	}
	// None of that has moved the first two.
	a.says(200, "ready")
	b.says(200, "ready")
	if out := b.Output(); strings.Contains(out, "store is away") {
		t.Errorf("%s says\n%s", b.Name, out)
	}
}

// One side has TLS, the other has not.
func TestTLSOnOneSide(t *testing.T) {
	t.Parallel()
	l := labtest.New(t, lab.Options{Segments: []int{3}})
	ca := newAuthority(t, "ca")
	a := start(t, l.Hosts[0], append([]string{"-store", "embed", "-listen", "https://198.18.0.2:2379"}, ca.issue("store", time.Hour, "198.18.0.2")...)...)
	b := start(t, l.Hosts[1], "-store", "embed", "-listen", "http://198.18.0.3:2379", "-insecure")
	a.ready(0)
	b.ready(0)
	for _, test := range []struct {
		flags []string
		want  string
	}{
		{[]string{"-store", "http://198.18.0.2:2379", "-insecure"}, "does it want TLS?"},
		{append([]string{"-store", "https://198.18.0.3:2379"}, ca.issue("c", time.Hour)...), "does it use TLS?"},
	} {
		n := start(t, l.Hosts[2], test.flags...)
		n.says(503, test.want)
		n.stop()
	}
	n := start(t, l.Hosts[2], "-store", "http://198.18.0.3:2379", "-insecure")
	n.ready(1)
}
