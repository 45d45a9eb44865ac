package status

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
)

// ErrNoAgent is that no agent listens on a socket.
var ErrNoAgent = errors.New("no agent runs there")

// maxSize is the size of the largest State that is read, in bytes. One of a thousand peers is below 1 MiB.
const maxSize = 64 << 20

// Get asks the agent on a unix socket for its State. The error is ErrNoAgent if no agent listens there, os.ErrPermission if
// the socket may not be used, and os.ErrInvalid if the answer is no State.
func Get(ctx context.Context, socket string) (State, error) {
	s, err := get(ctx, socket)
	if err != nil {
		return State{}, fmt.Errorf("asking the agent on %s: %w", socket, err)
	}
	return s, nil
}

func get(ctx context.Context, socket string) (s State, err error) {
	err = ask(ctx, socket, "state", func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK {
			return refused(resp)
		}
		s, err = decode(resp.Body)
		return err
	})
	return s, err
}

// Explain asks the agent on a unix socket why a peer is not reached: its name, its ID or the beginning of its ID. It returns what
// the agent says, and whether nothing is wrong. The errors are those of [Get].
func Explain(ctx context.Context, socket, peer string) (report string, fine bool, err error) {
	err = ask(ctx, socket, "explain?peer="+url.QueryEscape(peer), func(resp *http.Response) error {
		if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusConflict {
			return refused(resp)
		}
		said, err := io.ReadAll(io.LimitReader(resp.Body, maxSize))
		report, fine = string(said), resp.StatusCode == http.StatusOK
		return err
	})
	if err != nil {
		return "", false, fmt.Errorf("asking the agent on %s: %w", socket, err)
	}
	return report, fine, nil
}

// ask sends the agent a request and hands on its answer.
func ask(ctx context.Context, socket, path string, answer func(*http.Response) error) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", socket)
		},
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/"+path, nil)
	if err != nil {
		return err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return plain(err)
	}
	defer resp.Body.Close()
	return answer(resp)
}

// refused is the error of an answer that is none.
func refused(resp *http.Response) error {
	said, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
	return fmt.Errorf("the answer is %s: %q", resp.Status, strings.TrimSpace(string(said)))
}

// plain leaves of an error of http what the kernel said.
func plain(err error) error {
	var call *os.SyscallError
	if !errors.As(err, &call) {
		return err
	}
	if call.Err == syscall.ENOENT || call.Err == syscall.ECONNREFUSED {
		return fmt.Errorf("%w: %w", ErrNoAgent, call)
	}
	return call
}

// decode reads a State.
func decode(r io.Reader) (s State, err error) {
	b, err := io.ReadAll(io.LimitReader(r, maxSize+1))
	if err != nil {
		return s, err
	}
	if len(b) > maxSize {
		return s, fmt.Errorf("more than %d bytes: %w", maxSize, os.ErrInvalid)
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return State{}, fmt.Errorf("%w: %w", err, os.ErrInvalid)
	}
	return s, s.Validate()
}
