package store

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

// dialer makes connections and keeps why the last one to an address failed. etcd's client does not say it: a call that waits for
// a connection ends with "context deadline exceeded", whatever the cause.
type dialer struct {
	dial    func(ctx context.Context, network, address string) (net.Conn, error)
	members int

	mu     sync.Mutex
	failed map[string]error      // by address; an address that was reached since is not in it
	open   map[*tracked]struct{} // connections that are not closed
}

func newDialer(cfg Config) *dialer {
	dial := cfg.Dial
	if dial == nil {
		dial = new(net.Dialer).DialContext
	}
	return &dialer{dial: dial, members: len(cfg.Endpoints), failed: map[string]error{}, open: map[*tracked]struct{}{}}
}

// context is gRPC's dialer. A target is host:port, or unix: and a path.
func (d *dialer) context(ctx context.Context, target string) (net.Conn, error) {
	network, address := "tcp", target
	if path, ok := strings.CutPrefix(target, "unix:"); ok {
		network, address = "unix", strings.TrimPrefix(path, "//")
	}
	conn, err := d.dial(ctx, network, address)
	d.note(address, err)
	if err != nil {
		return nil, err
	}
	t := &tracked{Conn: conn, dialer: d}
	d.mu.Lock()
	d.open[t] = struct{}{}
	d.mu.Unlock()
	return t, nil
}

// tracked is a connection that its dialer knows until it is closed.
type tracked struct {
	net.Conn
	dialer *dialer
}

func (t *tracked) Close() error {
	t.dialer.mu.Lock()
	delete(t.dialer.open, t)
	t.dialer.mu.Unlock()
	return t.Conn.Close()
}

// closeFrom closes the connections from addresses that the host does not have any more.
func (d *dialer) closeFrom(gone func(netip.Addr) bool) {
	d.mu.Lock()
	var stale []*tracked
	for t := range d.open {
		if local, ok := t.LocalAddr().(*net.TCPAddr); ok && gone(local.AddrPort().Addr().Unmap().WithZone("")) {
			stale = append(stale, t)
		}
	}
	d.mu.Unlock()
	for _, t := range stale {
		_ = t.Close()
	}
}

// note keeps the error of an address, or forgets it.
func (d *dialer) note(address string, err error) {
	if errors.Is(err, context.Canceled) {
		return // the client is being closed, or has another connection
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil {
		delete(d.failed, address)
	} else {
		d.failed[address] = err
	}
}

// cause is why connections fail now, nil if none does.
func (d *dialer) cause() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var errs []error
	for _, address := range slices.Sorted(maps.Keys(d.failed)) {
		errs = append(errs, d.failed[address])
	}
	if len(errs) == 0 {
		return nil
	}
	return &causes{errs}
}

// refused reports whether no member can be reached, and one for its certificate or this node's: trying again does not help.
func (d *dialer) refused() bool {
	d.mu.Lock()
	reached := len(d.failed) < d.members
	d.mu.Unlock()
	var h *HandshakeError
	return !reached && errors.As(d.cause(), &h)
}

// causes are errors in one line.
type causes struct{ errs []error }

func (c *causes) Unwrap() []error { return c.errs }
func (c *causes) Error() string {
	var texts []string
	for _, err := range c.errs {
		texts = append(texts, err.Error())
	}
	return strings.Join(texts, "; ")
}

// HandshakeError says why a member and this program did not accept each other's certificates.
type HandshakeError struct {
	Address string
	Err     error // of crypto/tls or crypto/x509
}

func (e *HandshakeError) Unwrap() error { return e.Err }
func (e *HandshakeError) Error() string {
	text := fmt.Sprintf("TLS handshake with %s: %v", e.Address, e.Err)
	var unknown x509.UnknownAuthorityError
	switch {
	case isAlert(e.Err) && strings.HasSuffix(e.Err.Error(), "certificate required"):
		text += " (the store wants a certificate of this node: -cert and -key)"
	case isAlert(e.Err):
		text += " (the store refuses this node's certificate)"
	case errors.As(e.Err, &unknown):
		text += " (-ca names the file of the store's authority)"
	}
	return text
}

// handshakeError is what a failed handshake is: a HandshakeError if a certificate or the protocol is the cause, another error if
// the connection ended on the way.
func handshakeError(address string, err error) error {
	var verification *tls.CertificateVerificationError
	var header tls.RecordHeaderError
	if isAlert(err) || errors.As(err, &verification) || errors.As(err, &header) || errors.Is(err, os.ErrInvalid) {
		return &HandshakeError{address, err}
	}
	return fmt.Errorf("TLS handshake with %s: the connection ended, does it use TLS? (%w)", address, err)
}

// isAlert reports whether the other side has sent an alert of TLS. crypto/tls does not export the type.
func isAlert(err error) bool {
	var e *net.OpError
	return errors.As(err, &e) && e.Op == "remote error"
}

// handshaker is TLS, or no TLS, that tells a dialer what became of a connection.
type handshaker struct {
	credentials.TransportCredentials
	config func() (*tls.Config, error) // of the next connection; nil without TLS
	dialer *dialer
}

// newHandshaker reads the files of the configuration for each connection.
func newHandshaker(cfg Config, first *tls.Config, d *dialer) handshaker {
	if first == nil {
		return handshaker{insecure.NewCredentials(), nil, d}
	}
	return handshaker{credentials.NewTLS(first), cfg.tls, d}
}

// ClientHandshake does the handshake. With TLS 1.3 the server judges the client's certificate after the client is done, so the
// first read is a part of it.
func (h handshaker) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	address := raw.RemoteAddr().String()
	note := func(err error) {
		switch {
		case err == nil:
		case h.config != nil:
			err = handshakeError(address, err)
		default:
			err = fmt.Errorf("%s ended the connection without an answer, does it want TLS? (%w)", address, err)
		}
		h.dialer.note("answer of "+address, err)
	}
	now := h.TransportCredentials
	if h.config != nil {
		cfg, err := h.config()
		if err != nil {
			h.dialer.note("answer of "+address, &HandshakeError{address, err})
			return nil, nil, err
		}
		now = credentials.NewTLS(cfg)
	}
	conn, info, err := now.ClientHandshake(ctx, authority, raw)
	if err != nil {
		if ctx.Err() == nil {
			note(err)
		}
		return nil, nil, err
	}
	return &firstRead{Conn: conn, done: note}, info, nil
}

// Clone is for gRPC: the clone tells the same dialer.
func (h handshaker) Clone() credentials.TransportCredentials {
	return handshaker{h.TransportCredentials.Clone(), h.config, h.dialer}
}

// firstRead is a connection whose first read says whether the server has accepted the handshake.
type firstRead struct {
	net.Conn
	once sync.Once
	done func(error)
}

func (c *firstRead) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.once.Do(func() {
		if n > 0 {
			c.done(nil)
		} else if !errors.Is(err, net.ErrClosed) {
			c.done(err)
		}
	})
	return n, err
}
