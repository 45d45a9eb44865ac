package main

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The pages for readers name nothing that the library does not export.
func TestPagesNameWhatIsExported(t *testing.T) {
	t.Parallel()
	const root = "../../"
	surface := make(map[string]string) // package: its file
	for _, name := range []string{"netns", "netnstest", "link", "route", "nat"} {
		text, err := os.ReadFile(name + ".txt")
		if err != nil {
			t.Fatal(err)
		}
		surface[name] = string(text)
	}
	qualified := regexp.MustCompile(`^(netns|netnstest|link|route|nat)\.([A-Z]\w*)(?:\.([A-Z]\w*))?`)
	member := regexp.MustCompile(`^(NS|Link|NAT|Network)\.([A-Z]\w*)`)
	of := map[string]string{"NS": "netns", "Link": "link", "NAT": "nat", "Network": "nat"}
	has := func(pkg, pattern string) bool { return regexp.MustCompile(`(?m)^` + pattern).MatchString(surface[pkg]) }

	for _, page := range []string{"README.md", "SECURITY.md", "link/MIGRATING.md"} {
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
				found = has(m[1], `(const|func|type|var) `+m[2]+`\b`)
				if found && m[3] != "" {
					found = has(m[1], `(field `+m[2]+`\.|method \(\*?`+m[2]+`\) )`+m[3]+`\b`)
				}
			} else if m := member.FindStringSubmatch(code); m != nil {
				found = has(of[m[1]], `(field `+m[1]+`\.|method \(\*?`+m[1]+`\) )`+m[2]+`\b`)
			}
			if !found {
				t.Errorf("%s names `%s`, which is not exported", page, code)
			}
		}
	}
}
