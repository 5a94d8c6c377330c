package media

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	_ "image/gif" // decoders register themselves with package image
	"image/jpeg"
	"image/png"
	"io"
	"time"

	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp"

	"conclave/internal/store"
)

// Bounds of an image that is decoded (threats section 1).
const (
	maxPixels      = 32 << 20
	maxSide        = 16_384
	maxImageMemory = 256 << 20 // bytes that decoding takes, as far as the header tells
	maxImageFile   = 64 << 20
	jpegQuality    = 82
)

var (
	errPixels = errors.New("media: the image is too large")
	errLate   = errors.New("media: decoding takes too long")
)

// shrunk is a thumbnail. data is nil if the content itself serves as one.
type shrunk struct {
	kind string // content type
	data []byte
}

// shrink makes a thumbnail of an image file: within size, or filling it, never larger than the image. The zero size is
// the image as large as it is. What moves comes out still, unless the size asks for more: then a GIF goes on moving, and
// so does any that serves as it is.
func shrink(f io.ReadSeeker, size store.ThumbnailSize, deadline time.Time) (*shrunk, error) {
	seen, err := inspect(f, deadline)
	if err != nil {
		return nil, err
	}
	from, to := frame(seen.width, seen.height, size)
	whole := to == image.Point{seen.width, seen.height}
	switch {
	case seen.moves && size.Moving && whole:
		return &shrunk{kind: "image/" + seen.format}, nil
	case seen.moves && size.Moving && seen.format == "gif":
		half := time.Now().Add(time.Until(deadline) / 2) // the rest is for one that stands still
		if made, err := shrinkGIF(rewound(f, half), size, half); err == nil {
			return made, nil
		}
	case whole && !seen.moves && (seen.format == "jpeg" || seen.format == "webp"):
		return &shrunk{kind: "image/" + seen.format}, nil
	}
	img, _, err := image.Decode(rewound(f, deadline))
	if err != nil {
		return nil, fmt.Errorf("decoding the image: %w", err)
	}
	return encode(resize(img, seen.orientation, from, to))
}

// imageHead is what an image file says of itself before its pixels. Width and height are as it is seen.
type imageHead struct {
	format        string // png, jpeg, gif or webp
	width, height int
	orientation   int  // of EXIF
	moves         bool // and can be had moving
}

// inspect reads the head of an image file, and refuses what is no image or would be too large decoded.
func inspect(f io.ReadSeeker, deadline time.Time) (imageHead, error) {
	header, format, err := image.DecodeConfig(rewound(f, deadline))
	if err != nil {
		return imageHead{}, fmt.Errorf("reading the image's header: %w", err)
	}
	look := jpegLook{orientation: 1}
	if format == "jpeg" {
		look = lookIntoJPEG(rewound(f, deadline))
	}
	if err := affordable(header, look.progressive); err != nil {
		return imageHead{}, err
	}
	if look.orientation > 4 {
		header.Width, header.Height = header.Height, header.Width
	}
	seen := imageHead{format: format, width: header.Width, height: header.Height, orientation: look.orientation}
	switch format {
	case "gif":
		seen.moves = lookIntoGIF(rewound(f, deadline)).movable(image.Pt(seen.width, seen.height))
	case "webp":
		seen.moves = movingWebP(rewound(f, deadline))
	}
	return seen, nil
}

// affordable refuses an image by its header, before memory is taken for it.
func affordable(h image.Config, progressive bool) error {
	if h.Width < 1 || h.Height < 1 || h.Width > maxSide || h.Height > maxSide || h.Width*h.Height > maxPixels {
		return errPixels
	}
	perPixel := 4
	switch h.ColorModel {
	case color.RGBA64Model, color.NRGBA64Model:
		perPixel = 8
	}
	if progressive {
		perPixel = 4*4 + 4 // all coefficients are in memory beside the image
	}
	if h.Width*h.Height*perPixel > maxImageMemory {
		return errPixels
	}
	return nil
}

// frame says which part of an image is shown and how large it comes out. Nothing is enlarged.
func frame(w, h int, size store.ThumbnailSize) (from image.Rectangle, to image.Point) {
	from, to = image.Rect(0, 0, w, h), image.Pt(w, h)
	if size.Width == 0 || w <= size.Width && h <= size.Height {
		return from, to
	}
	if !size.Crop {
		if w*size.Height > h*size.Width { // wider than the box
			return from, image.Pt(size.Width, max(1, h*size.Width/w))
		}
		return from, image.Pt(max(1, w*size.Height/h), size.Height)
	}
	cw, ch := w, h // the largest part with the box's proportions
	if w*size.Height > h*size.Width {
		cw = max(1, h*size.Width/size.Height)
	} else {
		ch = max(1, w*size.Height/size.Width)
	}
	x, y := (w-cw)/2, (h-ch)/2
	return image.Rect(x, y, x+cw, y+ch), image.Pt(min(cw, size.Width), min(ch, size.Height))
}

// resize cuts and scales. The frame is that of the image as it is seen; orientation says how it is stored.
func resize(img image.Image, orientation int, from image.Rectangle, to image.Point) *image.RGBA {
	b := img.Bounds()
	stored, size := unturned(from, orientation, b.Dx(), b.Dy()), to
	if orientation > 4 {
		size.X, size.Y = to.Y, to.X
	}
	out := image.NewRGBA(image.Rectangle{Max: size})
	part := stored.Add(b.Min)
	// The exact filter looks at every pixel, in memory that grows with the source: it gets at most twice of what is wanted.
	if twice := size.Mul(2); part.Dx() > twice.X && part.Dy() > twice.Y {
		half := image.NewRGBA(image.Rectangle{Max: twice})
		draw.ApproxBiLinear.Scale(half, half.Bounds(), img, part, draw.Src, nil)
		img, part = half, half.Bounds()
	}
	draw.BiLinear.Scale(out, out.Bounds(), img, part, draw.Src, nil)
	return turned(out, orientation)
}

// encode writes JPEG, or PNG where something shows through.
func encode(img *image.RGBA) (*shrunk, error) {
	var out bytes.Buffer
	if img.Opaque() {
		err := jpeg.Encode(&out, img, &jpeg.Options{Quality: jpegQuality})
		return &shrunk{"image/jpeg", out.Bytes()}, err
	}
	err := png.Encode(&out, img)
	return &shrunk{"image/png", out.Bytes()}, err
}

// rewound reads a file from its beginning until the deadline.
func rewound(f io.ReadSeeker, deadline time.Time) io.Reader {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return failing{err}
	}
	return &timedReader{io.LimitReader(f, maxImageFile), deadline}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

// timedReader ends with an error after a time: decoders take no context, but they stop when their source does.
type timedReader struct {
	r        io.Reader
	deadline time.Time
}

func (t *timedReader) Read(p []byte) (int, error) {
	if time.Now().After(t.deadline) {
		return 0, errLate
	}
	return t.r.Read(p)
}
