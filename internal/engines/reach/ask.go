package reach

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// Answer is what a server says.
type Answer struct {
	Server string     // its name
	Client netip.Addr // who asks, as the server sees it
}

// String is the line that a server sends.
func (a Answer) String() string { return a.Server + " " + a.Client.String() }

// ParseAnswer reads such a line.
func ParseAnswer(line string) (Answer, error) {
	server, client, ok := strings.Cut(strings.TrimSpace(line), " ")
	addr, err := netip.ParseAddr(client)
	if !ok || err != nil {
		return Answer{}, fmt.Errorf("%q is no answer of a server", line)
	}
	return Answer{server, addr}, nil
}

// again is how long Ask waits for a datagram before it sends the next.
const again = 200 * time.Millisecond

// Ask asks the server at a TCP or UDP address from a namespace, until ctx is done.
func Ask(ctx context.Context, ns *netns.NS, network, address string) (Answer, error) {
	c, err := ns.Dial(ctx, network, address)
	if err != nil {
		return Answer{}, err
	}
	defer c.Close()
	defer context.AfterFunc(ctx, func() { c.Close() })()
	if strings.HasPrefix(network, "udp") {
		return askUDP(ctx, c)
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		return Answer{}, errors.Join(err, ctx.Err())
	}
	return ParseAnswer(line)
}

func askUDP(ctx context.Context, c net.Conn) (Answer, error) {
	buf := make([]byte, 512)
	for {
		if _, err := c.Write([]byte("who")); err != nil && ctx.Err() != nil {
			return Answer{}, errors.Join(err, ctx.Err())
		}
		if err := c.SetReadDeadline(time.Now().Add(again)); err != nil {
			return Answer{}, errors.Join(err, ctx.Err())
		}
		n, err := c.Read(buf)
		switch {
		case err == nil:
			return ParseAnswer(string(buf[:n]))
		case ctx.Err() != nil:
			return Answer{}, errors.Join(err, ctx.Err())
		case !errors.Is(err, os.ErrDeadlineExceeded):
			// Unreachable, which may be of a moment.
			select {
			case <-ctx.Done():
			case <-time.After(again):
			}
		}
	}
}
