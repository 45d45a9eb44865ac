package route

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/boxwire/boxwire/internal/enum"
	"github.com/boxwire/boxwire/internal/refuse"
)

// Table is the number of a routing table, any 32-bit number (linux/rtnetlink.h:
// RT_TABLE_*).
type Table uint32

// The tables that every namespace has.
const (
	TableDefault Table = 253 // empty; looked at last
	TableMain    Table = 254 // where routes go by default
	TableLocal   Table = 255 // the kernel's own: local and broadcast addresses
)

var tableNames = map[Table]string{TableDefault: "default", TableMain: "main", TableLocal: "local"}

// String returns the names main, local and default, and the number of other tables.
// [TableNames] returns the names that the machine gives to others.
func (t Table) String() string { return enum.Name(tableNames, t) }

// MarshalText returns what String does.
func (t Table) MarshalText() ([]byte, error) { return enum.Marshal(tableNames, t) }

// UnmarshalText reads a name or a number. Other text is os.ErrInvalid.
func (t *Table) UnmarshalText(text []byte) error { return enum.Unmarshal(tableNames, t, text) }

// TableNamed returns the table with a name on this machine, or with the number that the
// text is. The names are those of ip-route(8) and [TableNames]. An unknown name is
// os.ErrInvalid.
func TableNamed(name string) (Table, error) {
	t, err := tableNamed(name)
	return t, failed("route.TableNamed", fmt.Sprintf("table %q", name), err)
}

func tableNamed(name string) (Table, error) {
	if t, ok := enum.Value(tableNames, name, 32); ok {
		return t, nil
	}
	names, err := tableFiles()
	if err != nil {
		return 0, err
	}
	for t, n := range names {
		if n == name {
			return t, nil
		}
	}
	return 0, refuse.Input("the table %q is unknown: it is not in rt_tables", name)
}

// TableNames returns this machine's names of tables: main, local and default, and those in
// rt_tables and rt_tables.d/*.conf below /usr/lib/iproute2, /usr/share/iproute2 and
// /etc/iproute2. If a number has several names, the last one read counts, as in
// ip-route(8). Missing files, and lines without a number, are skipped.
func TableNames() (map[Table]string, error) {
	names, err := tableFiles()
	return names, failed("route.TableNames", "rt_tables", err)
}

func tableFiles() (map[Table]string, error) {
	return readTables("/usr/lib/iproute2", "/usr/share/iproute2", "/etc/iproute2")
}

func readTables(dirs ...string) (map[Table]string, error) {
	names := map[Table]string{}
	for t, n := range tableNames {
		names[t] = n
	}
	for _, dir := range dirs {
		files, err := filepath.Glob(filepath.Join(dir, "rt_tables.d", "*.conf"))
		if err != nil {
			return nil, err
		}
		for _, file := range append([]string{filepath.Join(dir, "rt_tables")}, files...) {
			if err := readTable(file, names); err != nil {
				return nil, err
			}
		}
	}
	return names, nil
}

func readTable(file string, names map[Table]string) error {
	f, err := os.Open(file)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	s := bufio.NewScanner(f)
	for s.Scan() {
		line, _, _ := strings.Cut(s.Text(), "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		if n, err := strconv.ParseUint(fields[0], 0, 32); err == nil {
			names[Table(n)] = fields[1]
		}
	}
	return s.Err()
}
