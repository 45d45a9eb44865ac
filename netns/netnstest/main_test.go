package netnstest

import "testing"

func TestMain(m *testing.M) {
	prepare()
	Main(m)
}
