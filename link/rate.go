package link

import (
	"fmt"
	"time"

	"github.com/boxwire/boxwire/internal/refuse"
)

// Rate is a speed in bits per second. It counts whole frames from the Ethernet
// header on, without preamble and checksum.
type Rate uint64

// Multiples of a bit per second, powers of ten: 100 * link.Mbit is 100,000,000 bits
// per second.
const (
	Kbit Rate = 1e3
	Mbit Rate = 1e6
	Gbit Rate = 1e9
)

// String returns the rate as tc(8) writes it: "100Mbit".
func (r Rate) String() string {
	for _, u := range []struct {
		Rate
		name string
	}{{Gbit, "Gbit"}, {Mbit, "Mbit"}, {Kbit, "Kbit"}} {
		if r >= u.Rate && r%u.Rate == 0 {
			return fmt.Sprintf("%d%s", r/u.Rate, u.name)
		}
	}
	return fmt.Sprintf("%dbit", uint64(r))
}

// Limit is how much may pass in one direction; see [Link.SetRate].
type Limit struct {
	// Rate is the speed in the long run, at least 8 bits per second. It is
	// rounded down to whole bytes per second. 0 is no limit.
	Rate Rate

	// Burst is how many bytes may pass at once after a pause. 0 is what passes
	// in 10 ms, and at least ten frames of the link's MTU: a smaller bucket is
	// empty before the timer of a fast link fills it again.
	//
	// A burst that holds no frame of the link's MTU with 18 bytes of headers is
	// os.ErrInvalid, as every such frame would be lost. So is one that takes
	// longer than 274 s at the rate: the kernel has no number for it.
	Burst int

	// Latency is how long a packet may wait, up to a minute; the kernel drops a
	// packet that would wait longer. 0 is 50 ms. A policer drops packets and
	// does not delay them, so it ignores Latency; see SetRate.
	Latency time.Duration
}

const defaultLatency = 50 * time.Millisecond

// check refuses what the kernel would truncate.
func (m Limit) check(what string) error {
	switch {
	case m.Rate == 0 && (m.Burst != 0 || m.Latency != 0):
		return refuse.Input("%s: a burst or a latency is given, and no rate", what)
	case m.Rate != 0 && m.Rate < 8:
		return refuse.Input("%s: the rate %s is less than a byte per second", what, m.Rate)
	case m.Burst < 0 || m.Burst > 1<<31-1:
		return refuse.Input("%s: a burst of %d bytes is out of range", what, m.Burst)
	case m.Latency < 0 || m.Latency > time.Minute:
		return refuse.Input("%s: a latency of %v is out of range (up to a minute)", what, m.Latency)
	case m.Rate > 0 && m.Rate/8 > 1<<40:
		return refuse.Input("%s: the rate %s is out of range", what, m.Rate)
	}
	return nil
}

// longestBurst is the time that the kernel has a number for: 32 bits of 64 ns.
const longestBurst = (1<<32 - 1) * 64 * time.Nanosecond

// checkFor refuses a limit, with its defaults, that does not fit a link with the
// MTU.
func (m Limit) checkFor(what string, mtu int) error {
	switch bytes := float64(m.Rate) / 8; {
	case m.Rate == 0:
		return nil
	case m.Burst < mtu+headers:
		return refuse.Input("%s: a burst of %d bytes holds no frame of the link (MTU %d and %d bytes of headers): every full frame would be lost", what, m.Burst, mtu, headers)
	case float64(m.Burst)/bytes > longestBurst.Seconds():
		return refuse.Input("%s: a burst of %d bytes takes longer than %v at %s", what, m.Burst, longestBurst.Truncate(time.Second), m.Rate)
	case bytes*m.Latency.Seconds()+float64(m.Burst) > 1<<32-1:
		return refuse.Input("%s: with a latency of %v, more than 4 GiB would wait at %s", what, m.Latency, m.Rate)
	}
	return nil
}

// headers are the bytes of an Ethernet header and a VLAN tag, which count as well.
const headers = 14 + 4

// filled returns the limit with its defaults, for a link with the MTU.
func (m Limit) filled(mtu int) Limit {
	if m.Rate == 0 {
		return m
	}
	if m.Burst == 0 {
		m.Burst = int(min(max(uint64(m.Rate)/8/100, 10*uint64(mtu+headers)), 1<<31-1))
		if most := float64(m.Rate) / 8 * longestBurst.Seconds(); float64(m.Burst) > most {
			m.Burst = max(int(most), mtu+headers) // a very slow one
		}
	}
	if m.Latency == 0 {
		m.Latency = defaultLatency
	}
	return m
}

// queue returns how many bytes may wait or pass at once, the limit of the queue.
func (m Limit) queue() uint32 {
	return uint32(min(float64(m.Rate)/8*m.Latency.Seconds()+float64(m.Burst), 1<<32-1))
}
