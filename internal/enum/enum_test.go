package enum

import (
	"errors"
	"os"
	"testing"
)

type colour uint8

var colours = map[colour]string{1: "red", 2: "green"}

func TestText(t *testing.T) {
	for _, c := range []struct {
		text string
		want colour
	}{{"red", 1}, {"green", 2}, {"3", 3}, {"0", 0}, {"0xff", 255}} {
		var got colour
		if err := Unmarshal(colours, &got, []byte(c.text)); err != nil || got != c.want {
			t.Errorf("%s: %d, %v; want %d", c.text, got, err, c.want)
		}
		var again colour
		text, err := Marshal(colours, got)
		if err := errors.Join(err, Unmarshal(colours, &again, text)); err != nil || again != got {
			t.Errorf("%s is written %q and read %d (%v)", c.text, text, again, err)
		}
	}
	for _, bad := range []string{"", "Red", "256", "-1", "blue", "1 "} {
		got := colour(7)
		if err := Unmarshal(colours, &got, []byte(bad)); !errors.Is(err, os.ErrInvalid) || got != 7 {
			t.Errorf("%q: %d, %v", bad, got, err)
		}
	}
}
