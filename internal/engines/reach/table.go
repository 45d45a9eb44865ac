package reach

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// patience bounds how long an answer that must come may take.
const patience = 15 * time.Second

// silence is how long nobody has to answer to count as unreachable.
const silence = time.Second

// pause is between two questions of During.
const pause = 20 * time.Millisecond

// World has the names that a table uses.
type World struct {
	Places  map[string]*netns.NS // who asks
	Targets map[string]string    // what is asked: host:port
}

// Check asks everything that a table names, all at once, and fails the test for each answer that is not as
// the table says. The first line names the places. Each other line begins with a network, tcp or
// udp, and a target, and has a cell for each place:
//
//	          lan   host   web
//	tcp web4  web   web    -
//	udp dns6  -     .      dns@2001:db8:1::1
//
// A cell is the name of the server that answers, with "@" and the address that it sees if that matters; "-" if
// nobody may answer; "." if it is not asked.
func (w World) Check(t testing.TB, when, table string) {
	t.Helper()
	rows := w.rows(t, when, table)
	var wg sync.WaitGroup
	for _, row := range rows {
		for _, c := range row.cells {
			wg.Go(func() { c.ask(t.Context(), row.network, row.address) })
		}
	}
	wg.Wait()
	w.report(t, when, rows)
}

// During is Check again and again as long as fn runs. What the table promises has to be answered in the end, and
// what it denies never.
func (w World) During(t testing.TB, when, table string, fn func()) {
	t.Helper()
	rows := w.rows(t, when, table)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for _, row := range rows {
		for _, c := range row.cells {
			wg.Go(func() {
				for c.got = c.want; c.right(); {
					c.ask(t.Context(), row.network, row.address)
					c.asked++
					select {
					case <-stop:
						return
					case <-time.After(pause):
					}
				}
			})
		}
	}
	func() {
		defer wg.Wait() // also if fn ends the test
		defer close(stop)
		fn()
	}()
	w.report(t, when, rows)
}

// rows parses the table.
func (w World) rows(t testing.TB, when, table string) []row {
	t.Helper()
	rows, err := w.parse(table)
	if err != nil {
		t.Fatalf("reach: %s: %v", when, err)
	}
	return rows
}

// report logs what was answered, and fails the test if something is wrong: then it logs the state of the places, too.
func (w World) report(t testing.TB, when string, rows []row) {
	t.Helper()
	wrong, asked := 0, 0
	var out strings.Builder
	tab := tabwriter.NewWriter(&out, 0, 0, 2, ' ', 0)
	for i, row := range rows {
		if i == 0 {
			fmt.Fprint(tab, "\t")
			for _, c := range row.cells {
				fmt.Fprint(tab, "\t", c.place)
			}
			fmt.Fprintln(tab)
		}
		fmt.Fprint(tab, row.network, "\t", row.target)
		for _, c := range row.cells {
			fmt.Fprint(tab, "\t", c.got)
			asked += c.asked
			if !c.right() {
				wrong++
				fmt.Fprintf(tab, " (want %s)", c.want)
			}
		}
		fmt.Fprintln(tab)
	}
	tab.Flush()
	if wrong > 0 {
		t.Errorf("reach: %s: %d answers are wrong:\n%s%s", when, wrong, out.String(), w.errors(rows))
		t.Logf("reach: %s: the places:\n%s", when, w.state(t.Context()))
		return
	}
	if asked > 0 {
		when += fmt.Sprintf(" (%d times asked)", asked)
	}
	t.Logf("%s:\n%s", when, out.String())
}

// row is one line of a table.
type row struct {
	network, target, address string
	cells                    []*cell
}

// cell is one question.
type cell struct {
	place string
	ns    *netns.NS
	want  string
	got   string
	err   error
	asked int // by During
}

// ask fills got.
func (c *cell) ask(ctx context.Context, network, address string) {
	if c.want == "." {
		c.got = "."
		return
	}
	wait := patience
	if c.want == "-" {
		wait = silence
	}
	ctx, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	var a Answer
	for {
		once, done := context.WithTimeout(ctx, wait/2)
		if c.want == "-" {
			once = ctx
		}
		a, c.err = Ask(once, c.ns, network, address)
		done()
		if c.err == nil || c.want == "-" || ctx.Err() != nil {
			break
		}
		// Refused, or cut off by a change of rules after it had begun: both may be of a moment.
		select {
		case <-ctx.Done():
		case <-time.After(again):
		}
	}
	c.got = "-"
	if c.err == nil {
		c.got = a.Server
		if strings.Contains(c.want, "@") {
			c.got += "@" + a.Client.String()
		}
	}
}

func (c *cell) right() bool { return c.got == c.want }

// parse reads a table.
func (w World) parse(table string) ([]row, error) {
	var places []string
	var rows []row
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0:
			continue
		case places == nil:
			places = fields
			continue
		case len(fields) != len(places)+2:
			return nil, fmt.Errorf("%q has %d fields, want %d", strings.TrimSpace(line), len(fields), len(places)+2)
		}
		r := row{network: fields[0], target: fields[1], address: w.Targets[fields[1]]}
		if r.address == "" {
			return nil, fmt.Errorf("there is no target %s", r.target)
		}
		for i, place := range places {
			ns := w.Places[place]
			if ns == nil {
				return nil, fmt.Errorf("there is no place %s", place)
			}
			r.cells = append(r.cells, &cell{place: place, ns: ns, want: fields[i+2]})
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// errors lists why answers that had to come did not.
func (w World) errors(rows []row) string {
	var b strings.Builder
	for _, r := range rows {
		for _, c := range r.cells {
			if c.err != nil && !c.right() {
				fmt.Fprintf(&b, "%s asks %s %s (%s): %v\n", c.place, r.network, r.target, r.address, c.err)
			}
		}
	}
	return b.String()
}
