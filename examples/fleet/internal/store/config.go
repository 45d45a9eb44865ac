package store

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/boxwire/boxwire/examples/fleet/internal/state"
)

// Config says which fleet of which store.
type Config struct {
	Fleet     string   // the name below /boxwire/fleet/
	Endpoints []string // all members, as https://a:2379, http://127.0.0.1:2379 or unix:///path; all with TLS or none

	// PEM files. CA is whom the store's certificate must be signed by, the machine's authorities if empty. Cert and Key are what
	// the agent shows to the store. They are read anew for each connection, so that they can be renewed under a running agent.
	CA, Cert, Key string

	// Insecure allows http beyond the loopback addresses: whoever is on the path can then read and change where packets go.
	Insecure bool

	// Dial makes the connections, of network "tcp" or "unix". It is that of a net.Dialer if nil.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// Validate reports what is wrong with the Config, all of it. It reads no files. The error is os.ErrInvalid.
func (c Config) Validate() error {
	errs := []error{state.ValidFleet(c.Fleet)}
	if len(c.Endpoints) == 0 {
		errs = append(errs, invalid("no endpoint of a store: want one like https://a:2379"))
	}
	var schemes [2]bool
	for _, text := range c.Endpoints {
		u, err := parseURL(text, c.Insecure)
		if err != nil {
			errs = append(errs, invalid("endpoint %v", err))
			continue
		}
		if u.Port() == "0" {
			errs = append(errs, invalid("endpoint %s: port 0: want 1 to 65535", text))
		}
		schemes[index(u.Scheme == "https")] = true
	}
	if schemes[0] && schemes[1] {
		errs = append(errs, invalid("endpoints %s: some with TLS and some without", strings.Join(c.Endpoints, ", ")))
	}
	if !schemes[1] && (c.CA != "" || c.Cert != "" || c.Key != "") {
		errs = append(errs, invalid("a certificate or CA is given, but no endpoint is https"))
	}
	return errors.Join(errs...)
}

func index(b bool) int {
	if b {
		return 1
	}
	return 0
}

// parseURL reads an address of a store. One without TLS must be on this machine, unless insecure.
func parseURL(text string, insecure bool) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return nil, invalid("%.80q: want a form like https://a:2379, http://127.0.0.1:2379 or unix:///path", text)
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || !filepath.IsAbs(u.Path) || len(u.Path) > 107 {
			return nil, invalid("%.120q: want an absolute path of at most 107 bytes, like unix:///run/etcd.sock", text)
		}
	case "http", "https":
		port := u.Port()
		if _, err := net.LookupPort("tcp", cmp.Or(port, "x")); u.Hostname() == "" || err != nil || strings.Trim(port, "0123456789") != "" {
			return nil, invalid("%.80q: want a host and a port, like %s://a:2379", text, u.Scheme)
		}
		if u.Path != "" && u.Path != "/" {
			return nil, invalid("%.80q: want no path", text)
		}
		if u.Scheme == "http" && !insecure && !loopback(u.Hostname()) {
			return nil, invalid("%.80q: http beyond this machine can be read and changed by others: want https, or -insecure", text)
		}
	default:
		return nil, invalid("%.80q: scheme %.20q: want https, http or unix", text, u.Scheme)
	}
	return u, nil
}

// loopback reports whether the host is this machine.
func loopback(host string) bool {
	a, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && a.Unmap().IsLoopback()
}

// tls reads the files and makes the TLS configuration of one connection, nil without TLS. A certificate that is not valid today is an
// error of the handshake that asks for it: without the store an agent still keeps what it knows, and the file may be renewed.
func (c Config) tls() (*tls.Config, error) {
	if len(c.Endpoints) == 0 || !strings.HasPrefix(c.Endpoints[0], "https:") {
		return nil, nil
	}
	t := &tls.Config{MinVersion: tls.VersionTLS12}
	var errs []error
	if c.CA != "" {
		pool, err := readCA(c.CA)
		if err != nil {
			errs = append(errs, err)
		}
		t.RootCAs = pool
	}
	if c.Cert != "" || c.Key != "" {
		pair, err := readPair(c.Cert, c.Key)
		if err != nil {
			errs = append(errs, err)
		}
		t.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return pair, validToday(c.Cert, pair)
		}
	}
	return t, errors.Join(errs...)
}

// readCA reads the certificates of authorities.
func readCA(file string) (*x509.CertPool, error) {
	pem, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("CA: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, invalid("CA %s: no certificate in PEM form", file)
	}
	return pool, nil
}

// readPair reads a certificate and its key.
func readPair(cert, key string) (*tls.Certificate, error) {
	if cert == "" || key == "" {
		return nil, invalid("certificate %q, key %q: want both", cert, key)
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	if err != nil {
		return nil, invalid("certificate %s, key %s: %v", cert, key, err)
	}
	return &pair, nil
}

// validToday reports a certificate that is not.
func validToday(file string, pair *tls.Certificate) error {
	now := time.Now()
	if leaf := pair.Leaf; leaf != nil && now.After(leaf.NotAfter) {
		return invalid("certificate %s: expired on %s", file, leaf.NotAfter.UTC().Format(time.DateTime))
	} else if leaf != nil && now.Before(leaf.NotBefore) {
		return invalid("certificate %s: not valid before %s: is the clock right?", file, leaf.NotBefore.UTC().Format(time.DateTime))
	}
	return nil
}
