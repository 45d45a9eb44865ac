package store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"google.golang.org/grpc"

	"github.com/boxwire/boxwire/internal/filelock"
)

// EmbedConfig says where a store in this process keeps its data, and who reaches it.
type EmbedConfig struct {
	Dir    string   // is created if it is not there; one store at a time uses it
	Listen []string // like https://10.0.0.1:2379, unix:///path; http://127.0.0.1:0 if empty; the kernel chooses a port 0

	// PEM files, for https. With CA, a client has to show a certificate that is signed by it.
	CA, Cert, Key string
	Insecure      bool // allows http beyond the loopback addresses, and https without CA

	Log    io.Writer // gets etcd's log, one JSON object a line; nil for none
	NoSync bool      // does not wait for the disk: faster, and loses data with the machine; for tests
}

// Embedded is a store in this process: one etcd member.
type Embedded struct {
	etcd      *embed.Etcd
	endpoints []string
	stop      context.CancelFunc // ends the streams of clients
	unlock    func()
	once      sync.Once
}

// StartEmbed starts a store in this process and waits until it answers. ctx is for the start only.
func StartEmbed(ctx context.Context, cfg EmbedConfig) (*Embedded, error) {
	e, err := startEmbed(ctx, cfg)
	if err != nil {
		return nil, fmt.Errorf("embedded store in %s: %w", cfg.Dir, err)
	}
	return e, nil
}

func startEmbed(ctx context.Context, cfg EmbedConfig) (_ *Embedded, err error) {
	if !filepath.IsAbs(cfg.Dir) {
		return nil, invalid("directory %.120q: want an absolute path", cfg.Dir)
	}
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	urls, err := cfg.urls()
	if err != nil {
		return nil, err
	}
	if withTLS(urls) {
		if err := cfg.checkFiles(); err != nil {
			return nil, err
		}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, err
	}
	e := new(Embedded)
	// etcd waits for a directory that another etcd has, without end and without a word.
	waiting, done := context.WithTimeout(ctx, time.Second)
	e.unlock, err = filelock.Directory(waiting, cfg.Dir)
	done()
	if err != nil {
		if ctx.Err() == nil && errors.Is(err, context.DeadlineExceeded) {
			err = errors.New("another store uses the directory")
		}
		return nil, err
	}
	streams, stop := context.WithCancel(context.Background())
	e.stop = stop
	defer func() {
		if err != nil {
			e.Close()
		}
	}()
	fatal := newFatal()
	if e.etcd, err = fatal.start(cfg.etcd(urls, streams, fatal)); err != nil {
		return nil, err
	}
	select {
	case <-e.etcd.Server.ReadyNotify():
	case err := <-e.etcd.Err():
		return nil, err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	e.endpoints = endpoints(urls, e.etcd.Clients)
	return e, nil
}

// Validate reports what is wrong with the addresses to listen on. It reads no files. The error is os.ErrInvalid.
func (cfg EmbedConfig) Validate() error {
	urls, err := cfg.urls()
	if err == nil && withTLS(urls) && cfg.CA == "" && !cfg.Insecure {
		err = invalid("listen with https but without a CA: everybody could change the fleet: want a CA that signs the agents' certificates, or -insecure")
	}
	return err
}

// urls reads the addresses to listen on.
func (cfg EmbedConfig) urls() ([]url.URL, error) {
	listen := cfg.Listen
	if len(listen) == 0 {
		listen = []string{"http://127.0.0.1:0"}
	}
	var urls []url.URL
	var errs []error
	for _, text := range listen {
		u, err := parseURL(text, cfg.Insecure)
		if err != nil {
			errs = append(errs, invalid("listen on %w", err))
			continue
		}
		u.Path = strings.TrimSuffix(u.Path, "/")
		urls = append(urls, *u)
	}
	return urls, errors.Join(errs...)
}

// withTLS reports whether one of the addresses has TLS.
func withTLS(urls []url.URL) bool {
	return slices.ContainsFunc(urls, func(u url.URL) bool { return u.Scheme == "https" })
}

// checkFiles reports what is wrong with the files of TLS.
func (cfg EmbedConfig) checkFiles() error {
	var errs []error
	if pair, err := readPair(cfg.Cert, cfg.Key); err != nil {
		errs = append(errs, err)
	} else {
		errs = append(errs, validToday(cfg.Cert, pair))
	}
	if cfg.CA != "" {
		_, err := readCA(cfg.CA)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// etcd is the configuration of the member.
func (cfg EmbedConfig) etcd(urls []url.URL, streams context.Context, fatal *fatal) *embed.Config {
	c := embed.NewConfig()
	c.Name = "fleet"
	c.Dir = cfg.Dir
	c.ListenClientUrls, c.AdvertiseClientUrls = urls, urls
	c.ListenPeerUrls = nil // it is alone
	c.InitialCluster = c.InitialClusterFromName(c.Name)
	c.EnableGRPCGateway = false
	if cfg.Cert != "" {
		info := &c.ClientTLSInfo
		info.CertFile, info.KeyFile, info.TrustedCAFile, info.ClientCertAuth = cfg.Cert, cfg.Key, cfg.CA, cfg.CA != ""
	}
	// A fleet has some MiB of keys, which change when a node does. Followers read all again after a loss, so an hour of history
	// serves only those who look for themselves.
	c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, "1h"
	c.QuotaBackendBytes = 1 << 30
	// A member that is alone has nobody to wait for in an election. etcd's shortest lease is 1.5 times the election's time.
	c.TickMs, c.ElectionMs = 50, 500
	c.UnsafeNoFsync = cfg.NoSync
	c.ZapLoggerBuilder = embed.NewZapLoggerBuilder(cfg.logger(fatal))
	c.GRPCAdditionalServerOptions = []grpc.ServerOption{grpc.ChainStreamInterceptor(endWith(streams))}
	return c
}

func (cfg EmbedConfig) logger(fatal *fatal) *zap.Logger {
	// A core that drops everything would drop fatal messages, and their hook, too.
	w := cfg.Log
	if w == nil {
		w = io.Discard
	}
	core := zapcore.NewCore(zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()), zapcore.Lock(zapcore.AddSync(w)), zap.InfoLevel)
	return zap.New(core, zap.WithFatalHook(fatal), zap.WithPanicHook(fatal))
}

// fatal is what etcd does where it cannot go on. By default it ends the program, or panics in a goroutine of its own. While it
// starts, that is an error of the start here. Afterwards it is a panic: the data cannot be written, and an agent without a store
// that it believes in is worse than one that its supervisor starts again.
type fatal struct {
	started atomic.Bool
	errs    chan error // the first, while it starts
}

func newFatal() *fatal { return &fatal{errs: make(chan error, 1)} }

// OnWrite is called after the message was logged. It does not return.
func (f *fatal) OnWrite(entry *zapcore.CheckedEntry, fields []zapcore.Field) {
	err := errors.New(entry.Message)
	for _, field := range fields {
		if cause, ok := field.Interface.(error); ok {
			err = fmt.Errorf("%s: %w", entry.Message, cause)
		}
	}
	if f.started.Load() {
		panic(fmt.Errorf("embedded store: %w", err))
	}
	select {
	case f.errs <- err:
	default:
	}
	runtime.Goexit()
}

// start starts etcd. When etcd has ended a goroutine of its own, those that wait for that one stay until the program ends.
func (f *fatal) start(cfg *embed.Config) (*embed.Etcd, error) {
	type result struct {
		etcd *embed.Etcd
		err  error
	}
	results := make(chan result, 1)
	go func() {
		etcd, err := embed.StartEtcd(cfg)
		f.started.Store(err == nil)
		results <- result{etcd, err}
	}()
	select {
	case r := <-results:
		return r.etcd, r.err
	case err := <-f.errs:
		return nil, err
	}
}

// endWith makes the streams of clients end with a context. etcd's own Close waits for them for seconds.
func endWith(end context.Context) grpc.StreamServerInterceptor {
	return func(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		ctx, cancel := context.WithCancel(stream.Context())
		defer cancel()
		defer context.AfterFunc(end, cancel)()
		return handle(srv, &boundStream{stream, ctx})
	}
}

type boundStream struct {
	grpc.ServerStream
	ctx context.Context
}

func (s *boundStream) Context() context.Context { return s.ctx }

// endpoints are the addresses that clients use: those that were asked for, with the ports that the kernel chose.
func endpoints(urls []url.URL, listeners []net.Listener) []string {
	var list []string
	for _, u := range urls {
		if u.Port() == "0" {
			for _, l := range listeners {
				if tcp, ok := l.Addr().(*net.TCPAddr); ok && tcp.IP.String() == u.Hostname() {
					u.Host = tcp.String()
				}
			}
		}
		list = append(list, u.String())
	}
	return list
}

// Endpoints are the addresses of the store, as [Config] has them.
func (e *Embedded) Endpoints() []string { return e.endpoints }

// Err has an error when the store stops by itself. It is closed with Close.
func (e *Embedded) Err() <-chan error { return e.etcd.Err() }

// Close stops the store. What was written is on the disk.
func (e *Embedded) Close() {
	e.once.Do(func() {
		e.stop()
		if e.etcd != nil {
			e.etcd.Close()
		}
		e.unlock()
	})
}
