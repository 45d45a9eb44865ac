package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

const root = "../../"

// apiNames is the exported API: package to names, one a line.
type apiNames map[string]string

func readAPI(t *testing.T) apiNames {
	t.Helper()
	s := make(apiNames)
	for _, name := range []string{"netns", "netnstest", "link", "route", "nat"} {
		text, err := os.ReadFile(name + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		s[name] = string(text)
	}
	return s
}

func (s apiNames) has(pkg, pattern string) bool {
	return regexp.MustCompile(`(?m)^` + pattern).MatchString(s[pkg])
}

// name reports whether the package exports the name, and its field or method unless that is "".
func (s apiNames) name(pkg, name, member string) bool {
	if !s.has(pkg, `(const|func|type|var) `+name+`\b`) {
		return false
	}
	return member == "" || s.member(pkg, name, member)
}

func (s apiNames) member(pkg, typ, member string) bool {
	return s.has(pkg, `(field `+typ+`\.|method \(\*?`+typ+`\) )`+member+`\b`)
}

// The tables of the package documentation that begin with a tool's commands name exported names
// in their second column.
func TestTablesOfToolsNameWhatIsExported(t *testing.T) {
	t.Parallel()
	all := readAPI(t)
	aside := regexp.MustCompile(`\{[^}]*\}|"[^"]*"`) // a literal's fields, a text
	word := regexp.MustCompile(`\b([A-Z]\w*)(?:\.([A-Z]\w*))?`)
	for _, pkg := range []string{"netns", "link", "route", "nat"} {
		text, err := os.ReadFile(root + pkg + "/doc.go")
		if err != nil {
			t.Fatal(err)
		}
		_, table, ok := strings.Cut(string(text), "\n// # From ")
		if !ok {
			t.Errorf("%s: the documentation has no table of commands", pkg)
		}
		table, _, _ = strings.Cut(table, "\n// # ")
		rows := 0
		for line := range strings.Lines(table) {
			line, ok := strings.CutPrefix(line, "//\t")
			if !ok {
				continue
			}
			i := strings.LastIndex(line, "  ")
			if i < 0 {
				t.Errorf("%s: the row %q has one column", pkg, line)
				continue
			}
			rows++
			found := word.FindAllStringSubmatch(aside.ReplaceAllString(line[i:], ""), -1)
			if len(found) == 0 {
				t.Errorf("%s: the row %q names no call", pkg, line)
			}
			for _, m := range found {
				if !all.name(pkg, m[1], m[2]) {
					t.Errorf("%s: the row %q names %s, which is not exported", pkg, line, m[0])
				}
			}
		}
		if rows < 5 {
			t.Errorf("%s: the table has %d rows", pkg, rows)
		}
	}
}

// The pages for readers name nothing that the library does not export.
func TestPagesNameWhatIsExported(t *testing.T) {
	t.Parallel()
	all := readAPI(t)
	qualified := regexp.MustCompile(`^(netns|netnstest|link|route|nat)\.([A-Z]\w*)(?:\.([A-Z]\w*))?`)
	member := regexp.MustCompile(`^(NS|Link|NAT|Network)\.([A-Z]\w*)`)
	of := map[string]string{"NS": "netns", "Link": "link", "NAT": "nat", "Network": "nat"}

	for _, page := range []string{"README.md", "SECURITY.md", "link/MIGRATING.md", "nat/BESIDE.md"} {
		text, err := os.ReadFile(root + page)
		if err != nil {
			t.Fatal(err)
		}
		for i, code := range strings.Split(string(text), "`") {
			if i%2 == 0 { // not between backticks
				continue
			}
			found := true
			if m := qualified.FindStringSubmatch(code); m != nil {
				found = all.name(m[1], m[2], m[3])
			} else if m := member.FindStringSubmatch(code); m != nil {
				found = all.member(of[m[1]], m[1], m[2])
			}
			if !found {
				t.Errorf("%s names `%s`, which is not exported", page, code)
			}
		}
	}
}
