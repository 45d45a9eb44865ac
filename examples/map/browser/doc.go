// Package browser tests the page of examples/map in a real browser: headless Chromium, driven by
// chromedp. It is a module of its own, so that the driver is no dependency of the library.
//
//	go -C examples/map/browser test .
//	BOXWIRE_SCREENSHOTS=/tmp/map go -C examples/map/browser test .
//	go -C examples/map/browser test -run '^$' -bench . -benchtime 1x .
//
// The tests run in a network, a mount and a pid namespace of their own, with Chromium and the program in
// them: 127.0.0.1, /run/netns and /proc are theirs, and there is no way to another host. They are skipped
// where there is no Chromium; with BOXWIRE_REQUIRE_CHROMIUM=1 in the environment they fail. With
// BOXWIRE_SCREENSHOTS they keep pictures of the page in a directory.
//
// The benchmarks measure how long the page takes to open and to show a change, and whether its memory
// grows.
package browser
