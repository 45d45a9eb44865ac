package store

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestEmbedSaysItsRealPortAndKeepsItsData(t *testing.T) {
	t.Parallel()
	cfg := EmbedConfig{Dir: filepath.Join(t.TempDir(), "a", "b"), NoSync: true}
	e, err := StartEmbed(t.Context(), cfg)
	must(t, err)
	endpoint := e.Endpoints()[0]
	if len(e.Endpoints()) != 1 || !strings.HasPrefix(endpoint, "http://127.0.0.1:") || strings.HasSuffix(endpoint, ":0") {
		t.Errorf("endpoints %v", e.Endpoints())
	}
	if info, err := os.Stat(cfg.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("directory: %v, %v: want mode 0700", info, err)
	}
	wantClaim(t, open(t, e), idOf(1), small(), "10.0.1.0/24", "fd00:0:0:1::/64")
	e.Close()
	e.Close() // twice is fine
	e, err = StartEmbed(t.Context(), cfg)
	must(t, err)
	defer e.Close()
	snapshot, err := open(t, e).Snapshot(t.Context())
	must(t, err)
	if len(snapshot.Claims) != 2 {
		t.Errorf("claims %v after a restart: want 2", snapshot.Claims)
	}
}

func TestEmbedOnSeveralAddresses(t *testing.T) {
	t.Parallel()
	dir, err := os.MkdirTemp("", "fleet")
	must(t, err)
	defer os.RemoveAll(dir)
	e, err := StartEmbed(t.Context(), EmbedConfig{
		Dir: dir, Listen: []string{"http://127.0.0.1:0", "http://[::1]:0", "unix://" + dir + "/sock"}, NoSync: true,
	})
	must(t, err)
	defer e.Close()
	if len(e.Endpoints()) != 3 {
		t.Fatalf("endpoints %v", e.Endpoints())
	}
	for _, endpoint := range e.Endpoints() {
		_, err := openWith(t, Config{Fleet: "x", Endpoints: []string{endpoint}}).Snapshot(t.Context())
		must(t, err)
	}
}

func TestEmbedCloseDoesNotWaitForClients(t *testing.T) {
	t.Parallel()
	m := newMember(t)
	s := open(t, m.Embedded)
	f := follow(t, s)
	f.next()
	k := keep(t, s, aliveOf(idOf(1), 1, "one"), time.Second)
	f.until("with the agent", func(i item) bool { return i.err == nil && len(i.snapshot.Alive) == 1 })
	closed := make(chan struct{})
	go func() { m.Close(); close(closed) }()
	// etcd's own way would wait until the streams end, for six seconds. The clients here never end them.
	select {
	case <-closed:
	case err := <-k.err:
		t.Fatal(err)
	case <-time.After(4 * time.Second):
		t.Fatal("Close takes more than 4s")
	}
}

func TestEmbedRefusesBadInput(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t, "ca")
	cert, key := ca.issue("store", soon)
	oldCert, oldKey := ca.issue("store", time.Now().Add(-time.Hour))
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	must(t, os.WriteFile(file, nil, 0o600))
	https := []string{"https://127.0.0.1:0"}
	for _, test := range []struct {
		name string
		cfg  EmbedConfig
		want string
	}{
		{"no directory", EmbedConfig{}, "want an absolute path"},
		{"a relative directory", EmbedConfig{Dir: "x"}, "want an absolute path"},
		{"a file as directory", EmbedConfig{Dir: file}, "not a directory"},
		{"http beyond this machine", EmbedConfig{Dir: dir, Listen: []string{"http://0.0.0.0:0"}}, "want https, or -insecure"},
		{"no form", EmbedConfig{Dir: dir, Listen: []string{"127.0.0.1:0"}}, "want a form like"},
		{"https without a certificate", EmbedConfig{Dir: dir, Listen: https, CA: ca.file}, "want both"},
		{"https with an expired one", EmbedConfig{Dir: dir, Listen: https, CA: ca.file, Cert: oldCert, Key: oldKey}, "expired on"},
		{"https for everybody", EmbedConfig{Dir: dir, Listen: https, Cert: cert, Key: key}, "without a CA"},
		{"no CA file", EmbedConfig{Dir: dir, Listen: https, CA: "/nowhere/ca", Cert: cert, Key: key}, "/nowhere/ca"},
		{"an address that is not here", EmbedConfig{Dir: dir, Listen: []string{"http://192.0.2.1:0"}, Insecure: true}, "cannot assign requested address"},
	} {
		t.Run(test.name, func(t *testing.T) {
			e, err := StartEmbed(t.Context(), test.cfg)
			if err == nil {
				e.Close()
				t.Fatal("it starts")
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("error %q: want %q", err, test.want)
			}
		})
	}
}

func TestEmbedRefusesADirectoryInUse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e, err := StartEmbed(t.Context(), EmbedConfig{Dir: dir, NoSync: true})
	must(t, err)
	defer e.Close()
	_, err = StartEmbed(t.Context(), EmbedConfig{Dir: dir, NoSync: true})
	if err == nil || !strings.Contains(err.Error(), "another store uses the directory") || !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v", err)
	}
}

// What etcd calls fatal is an error of StartEmbed, and does not end the program.
func TestEmbedWithBrokenData(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	e, err := StartEmbed(t.Context(), EmbedConfig{Dir: dir, NoSync: true})
	must(t, err)
	e.Close()
	db := filepath.Join(dir, "member", "snap", "db")
	must(t, os.WriteFile(db, bytes.Repeat([]byte("garbage!"), 4096), 0o600))
	if e, err := StartEmbed(t.Context(), EmbedConfig{Dir: dir, NoSync: true}); err == nil {
		e.Close()
		t.Error("it starts")
	} else if !strings.Contains(err.Error(), dir) {
		t.Errorf("error %v does not have the directory", err)
	}
}

func TestEmbedStartEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	dir := t.TempDir()
	_, err := StartEmbed(ctx, EmbedConfig{Dir: dir, NoSync: true})
	mustBe(t, err, context.Canceled)
	e, err := StartEmbed(t.Context(), EmbedConfig{Dir: dir, NoSync: true})
	must(t, err)
	e.Close()
}

func TestEmbedLogsWhereItIsTold(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	e, err := StartEmbed(t.Context(), EmbedConfig{Dir: t.TempDir(), NoSync: true, Log: &log})
	must(t, err)
	e.Close()
	if !strings.Contains(log.String(), `"msg":"starting an etcd server"`) {
		t.Errorf("log %q", log.String())
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}
func (l *lockedBuffer) String() string { l.mu.Lock(); defer l.mu.Unlock(); return l.b.String() }
