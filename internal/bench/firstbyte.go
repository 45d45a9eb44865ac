package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/boxwire/boxwire/netns"
	"golang.org/x/sys/unix"
)

// serveEnv has the program be the server in a box. Its value is the address that it listens on.
const serveEnv = "BOXWIRE_BENCH_SERVE"

// serveAgain is that program.
func serveAgain(addr string) error {
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "box")
	}))
}

const (
	nameRun       = "examples/run"
	nameCNIPlugin = "the CNI plugin"
	nameNoBox     = "the server alone"
)

var firstByteRow = row{
	name:    "start-to-first-byte",
	work:    "from a host without a bridge or a rule to the first answer of an HTTP server, a process in a new box, through a published port",
	unit:    "start",
	n:       30,
	plugins: true,
	run: func(ctx context.Context, b *bout) error {
		dir, err := pluginFolder()
		if err != nil {
			return err
		}
		self, err := os.Executable()
		if err != nil {
			return err
		}
		var all []*contender
		for _, kind := range []starter{
			{nameBoxwire, extra.Host.Port(), startLibrary},
			{nameRun, extra.Host.Port(), func(ctx context.Context, c *course) (*netns.Cmd, error) {
				return started(c.host.Command(ctx, filepath.Join(dir, "run"), "-p", "8080:80", "--", self), ":80")
			}},
			{nameCNIPlugin, extra.Host.Port(), func(ctx context.Context, c *course) (*netns.Cmd, error) {
				return startChain(ctx, c, dir, strings.Replace(boxwireConf, "RANGES", ranges4, 1))
			}},
			{nameReference, extra.Host.Port(), func(ctx context.Context, c *course) (*netns.Cmd, error) {
				return startChain(ctx, c, dir, strings.NewReplacer("RANGES", ranges4, "BACKEND", "iptables").Replace(chainConf))
			}},
			{nameNetavark, extra.Host.Port(), startNetavark},
			{nameNoBox, extra.Host.Port(), func(ctx context.Context, c *course) (*netns.Cmd, error) {
				return started(c.host.Command(ctx, "/proc/self/exe"), ":8080")
			}},
		} {
			if kind.name == nameNetavark {
				if _, err := netavarkPath(); err != nil {
					if err = b.excuse(kind.name, err); err != nil {
						return err
					}
					continue
				}
			}
			all = append(all, &contender{name: kind.name, round: kind.round})
		}
		if err := b.interleave(ctx, b.n, all...); err != nil {
			return err
		}
		b.brief("from nothing to the first HTTP answer through a published port", nameBoxwire, nameNoBox,
			[2]string{"`" + nameRun + "`", nameRun}, [2]string{nameCNIPlugin, nameCNIPlugin},
			[2]string{nameReference, nameReference}, [2]string{nameNetavark, nameNetavark})
		b.note("%q listens on the host's port itself: it is the start of a process and the connection, without a box. Dockerd and podman, which want a machine of their own, are compared by the benchmarks in internal/engines.", nameNoBox)
		return nil
	},
}

// A starter wires a box and starts the server in it.
type starter struct {
	name  string
	port  uint16
	start func(context.Context, *course) (*netns.Cmd, error)
}

// round starts everything on a host of its own, and waits for the answer.
func (s starter) round(ctx context.Context, _ int) (d time.Duration, err error) {
	c := &course{server: -1}
	if c.street, err = newStreet(ctx); err != nil {
		return 0, err
	}
	if c.sibling, err = netns.New(ctx); err != nil { // which nobody needs
		c.street.close()
		return 0, err
	}
	var cmd *netns.Cmd
	defer func() {
		if cmd != nil {
			cmd.Process.Signal(unix.SIGTERM)
			cmd.Wait()
		}
		err = errors.Join(err, c.close())
	}()
	if _, err := c.ask(ctx, extra.Host.Port()); !errors.Is(err, unix.ECONNREFUSED) { // the link to the neighbour is ready
		return 0, fmt.Errorf("before the start: %w", err)
	}
	return took(func() (err error) {
		if cmd, err = s.start(ctx, c); err != nil {
			return err
		}
		return c.answered(ctx, s.port)
	})
}

// answered asks until there is an answer.
func (c *course) answered(ctx context.Context, port uint16) error {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	at := netip.AddrPortFrom(netip.MustParseAddr(streetHost), port).String()
	for {
		err := c.ask1(ctx, at)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("there is no answer: %w", err)
		case <-time.After(200 * time.Microsecond):
		}
	}
}

// ask1 waits for the first byte of an answer. A packet that was lost is not sent again for a second, so
// that it does not wait so long for a connection.
func (c *course) ask1(ctx context.Context, at string) error {
	dial, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
	defer cancel()
	conn, err := c.outside.Dial(dial, "tcp4", at)
	if err != nil {
		return err
	}
	defer conn.Close()
	if t, ok := conn.(*net.TCPConn); ok {
		t.SetLinger(0) // the next one may have its port
	}
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("GET / HTTP/1.0\r\n\r\n")); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 1))
	return err
}

// started starts the server, which listens on an address.
func started(cmd *netns.Cmd, addr string) (*netns.Cmd, error) {
	cmd.Env = append(os.Environ(), serveEnv+"="+addr)
	cmd.Stderr = os.Stderr
	return cmd, cmd.Start()
}

// inBox starts it in the box.
func (c *course) inBox(ctx context.Context) (*netns.Cmd, error) {
	return started(c.box.Command(ctx, "/proc/self/exe"), ":80")
}

func (c *course) newBox(ctx context.Context) (err error) {
	c.box, err = netns.New(ctx)
	return err
}

func startLibrary(ctx context.Context, c *course) (*netns.Cmd, error) {
	if err := c.newBox(ctx); err != nil {
		return nil, err
	}
	if err := c.plug(ctx, c.box); err != nil {
		return nil, err
	}
	if err := c.publish(ctx, extra); err != nil {
		return nil, err
	}
	return c.inBox(ctx)
}

func startChain(ctx context.Context, c *course, dir, conf string) (*netns.Cmd, error) {
	if err := c.newBox(ctx); err != nil {
		return nil, err
	}
	if err := c.addNetwork(ctx, dir, conf, []*netns.NS{c.box}, "tcp"); err != nil {
		return nil, err
	}
	return c.inBox(ctx)
}

func startNetavark(ctx context.Context, c *course) (*netns.Cmd, error) {
	n, err := newNetavark(c.host)
	if err == nil {
		err = c.newBox(ctx)
	}
	if err == nil {
		err = n.run(ctx, "setup", "1", c.box, boxAddr(0).Addr(), netavarkPorts("tcp"))
	}
	if err != nil {
		return nil, err
	}
	return c.inBox(ctx)
}
