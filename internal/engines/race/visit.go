package race

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/boxwire/boxwire/internal/engines/machine"
	"github.com/boxwire/boxwire/netns"
)

// published is where a neighbour of the machine asks.
const published = "192.0.2.2:8080"

// Answered waits for the first HTTP answer through the published port. It has to be the box's of the name.
//
// podman and docker-proxy listen at the port before there is a container behind it, and a packet that is lost is sent
// again after a second only. So a visitor who waits does not keep the next one from coming.
func Answered(b *testing.B, m *machine.Machine, name string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(b.Context(), time.Minute)
	var visitors sync.WaitGroup
	defer visitors.Wait()
	defer cancel()
	answers := make(chan string, 1)
	for {
		failed := make(chan error, 1)
		visitors.Go(func() {
			got, err := visit(ctx, m.LAN)
			if err != nil {
				failed <- err
				return
			}
			select {
			case answers <- got:
			default: // a second one
			}
		})
		select {
		case got := <-answers:
			if got != name {
				b.Fatalf("race: %s answers in place of %s", got, name)
			}
			return
		case err := <-failed:
			if ctx.Err() != nil {
				b.Fatalf("race: %s does not answer: %v", name, err)
			}
			time.Sleep(200 * time.Microsecond)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Gone waits until the published port does not answer.
func Gone(b *testing.B, m *machine.Machine) {
	b.Helper()
	machine.Until(b, "the end of the published port", func() error {
		ctx, cancel := context.WithTimeout(b.Context(), time.Second)
		defer cancel()
		if got, err := visit(ctx, m.LAN); err == nil {
			return fmt.Errorf("%s answers", got)
		}
		return nil
	})
}

// visit asks for a page and returns it.
func visit(ctx context.Context, ns *netns.NS) (string, error) {
	c, err := ns.Dial(ctx, "tcp4", published)
	if err != nil {
		return "", err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if t, ok := c.(*net.TCPConn); ok {
		// The next connection may have the same port of its own.
		if err := t.SetLinger(0); err != nil {
			return "", err
		}
	}
	if _, err := io.WriteString(c, "GET / HTTP/1.0\r\n\r\n"); err != nil {
		return "", err
	}
	answer, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	return string(page), err
}
