// Package boxtest has what tests of programs that make boxes share.
package boxtest

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/boxwire/boxwire/netns"
)

// Answers asks an HTTP server at host:port from within a namespace, and says what is wrong with the answer; "" is nothing.
func Answers(from *netns.NS, at, want string) string {
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DialContext: from.Dial, DisableKeepAlives: true}}
	r, err := client.Get("http://" + at + "/")
	if err != nil {
		return err.Error()
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil || string(b) != want {
		return fmt.Sprintf("%s answers %q (%v), want %q", at, b, err, want)
	}
	return ""
}

// Within waits until wrong has nothing to say, for half a minute at most.
func Within(t testing.TB, wrong func() string) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for says := wrong(); says != ""; says = wrong() {
		if time.Now().After(deadline) {
			t.Fatal(says)
		}
		time.Sleep(5 * time.Millisecond)
	}
}
