package race

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/boxwire/boxwire/internal/engines/machine"
)

// Quiet waits until no process of a program is on the machine. Some go on after the command has returned that has
// started them: they would take time from the next round.
func Quiet(b *testing.B, m *machine.Machine, program string) {
	b.Helper()
	machine.Until(b, "the end of each process of "+program, func() error {
		all, err := filepath.Glob(m.Path("/proc") + "/[0-9]*/comm")
		if err != nil {
			return err
		}
		for _, file := range all {
			// One that cannot be read has ended.
			if name, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(name)) == program {
				return fmt.Errorf("%s is there", filepath.Dir(file))
			}
		}
		return nil
	})
}
