package machine

import (
	"errors"
	"testing"
	"time"
)

// patience bounds how long a program may take to do what it was asked to.
const patience = time.Minute

// Until asks again and again until a condition of another program holds that it sends no event of, and
// fails the test with the last error after a minute.
func Until(t testing.TB, what string, condition func() error) {
	t.Helper()
	if err := until(condition); err != nil {
		t.Fatalf("machine: %s: %v", what, err)
	}
}

// final is an error that asking again cannot change.
type final struct{ error }

func until(condition func() error) error {
	pause := time.Millisecond
	for end := time.Now().Add(patience); ; {
		err := condition()
		if err == nil || errors.As(err, &final{}) || time.Now().After(end) {
			return err
		}
		time.Sleep(pause)
		pause = min(2*pause, 100*time.Millisecond)
	}
}
