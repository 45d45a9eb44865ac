package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTheReadmeHasItsMarks(t *testing.T) {
	t.Parallel()
	if err := checkReadme("README.md"); err != nil {
		t.Error(err)
	}
}

func TestTheTableReplacesWhatIsBetweenTheMarks(t *testing.T) {
	t.Parallel()
	b := newBout(2, true)
	for range 2 {
		b.add("boxwire", 1500*time.Microsecond)
		b.add("floor", 900*time.Microsecond)
		b.add("slow", 30*time.Millisecond)
	}
	b.brief("attach", "boxwire", "floor", [2]string{"the slow one", "slow"}, [2]string{"not run", "nobody"})
	b.brief("nothing", "nobody", "floor")

	path, history := filepath.Join(t.TempDir(), "README.md"), t.TempDir()
	write := func() string {
		if err := keepResults([]Result{b.result(&row{name: "r"}, nil)}, history, "v0.1.0"); err != nil {
			t.Fatal(err)
		}
		if err := writeReadme(history, path); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	if err := os.WriteFile(path, []byte("above\n"+markBegin+"old\n"+markEnd+"below\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	text := write()
	if !strings.HasPrefix(text, "above\n"+markBegin) || !strings.HasSuffix(text, markEnd+"below\n") || strings.Contains(text, "old") {
		t.Errorf("the file is %q", text)
	}
	if want := "| attach | 1.50 ms | 900 µs | the slow one 30.0 ms (20 ×) |\n"; !strings.Contains(text, want) {
		t.Errorf("%q is not in %q", want, text)
	}
	if strings.Contains(text, "not") {
		t.Errorf("what was not run is in %q", text)
	}
	if again := write(); again != text {
		t.Errorf("the second time the file is %q", again)
	}
}

func TestAReadmeWithoutMarksIsLeftAlone(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "README.md")
	if err := os.WriteFile(path, []byte("text\n"+markBegin), 0o644); err != nil {
		t.Fatal(err)
	}
	if checkReadme(path) == nil || writeReadme("history", path) == nil {
		t.Error("it was taken")
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "text\n"+markBegin {
		t.Errorf("it is %q, %v", text, err)
	}
}

func TestNumbersForPeople(t *testing.T) {
	t.Parallel()
	for us, want := range map[float64]string{2.84: "2.84 µs", 51.62: "51.6 µs", 999.4: "999 µs", 999.6: "1.00 ms", 19_685.3: "19.7 ms", 999_600: "1.00 s"} {
		if got := human(us); got != want {
			t.Errorf("%v µs are %q, want %q", us, got, want)
		}
	}
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 50_000: "50,000", 1_000_007: "1,000,007"} {
		if got := thousands(n); got != want {
			t.Errorf("%d is %q, want %q", n, got, want)
		}
	}
	for v, want := range map[float64]string{0.85: "0.8 ×", 9.94: "9.9 ×", 9.96: "10 ×", 123.6: "124 ×"} {
		if got := times(v); got != want {
			t.Errorf("%v is %q, want %q", v, got, want)
		}
	}
}
