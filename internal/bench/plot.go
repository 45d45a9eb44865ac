package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg"
)

// charts collects the curves of all rows by the chart they belong in.
func charts(all []Result) (names []string, by map[string][]Curve) {
	by = map[string][]Curve{}
	for _, r := range all {
		for _, c := range r.Curves {
			if _, ok := by[c.Chart]; !ok {
				names = append(names, c.Chart)
			}
			by[c.Chart] = append(by[c.Chart], c)
		}
	}
	return names, by
}

// plotAll draws each chart into dir, once as SVG and once as PNG.
func plotAll(all []Result, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	names, by := charts(all)
	for _, name := range names {
		p, err := chart(name, by[name])
		if err != nil {
			return fmt.Errorf("drawing %s: %w", name, err)
		}
		for _, ext := range []string{".svg", ".png"} {
			if err := p.Save(18*vg.Centimeter, 11*vg.Centimeter, filepath.Join(dir, name+ext)); err != nil {
				return fmt.Errorf("drawing %s: %w", name, err)
			}
		}
	}
	return nil
}

func chart(name string, curves []Curve) (*plot.Plot, error) {
	p := plot.New()
	p.Title.Text = name
	p.X.Label.Text, p.Y.Label.Text = curves[0].X, curves[0].Y
	p.X.Min, p.Y.Min = 0, 0
	p.Legend.Top, p.Legend.Left = true, true
	p.Add(plotter.NewGrid())
	slices.SortStableFunc(curves, func(a, b Curve) int { return cmp.Compare(last(b), last(a)) })
	for i, c := range curves {
		points := make(plotter.XYs, len(c.Value))
		for j, v := range c.Value {
			points[j] = plotter.XY{X: v.X, Y: v.Y}
		}
		line, err := plotter.NewLine(points)
		if err != nil {
			return nil, err
		}
		line.Color, line.Width = plotutil.Color(i), vg.Points(1.8)
		p.Add(line)
		p.Legend.Add(c.Name, line)
	}
	return p, nil
}

// last is where a curve ends: the legend is in the order of the lines.
func last(c Curve) float64 { return c.Value[len(c.Value)-1].Y }
