package media

import (
	"bufio"
	"encoding/binary"
	"image"
	"io"
)

// jpegLook is what the segments of a JPEG say that package image/jpeg does not tell.
type jpegLook struct {
	progressive bool
	orientation int // of EXIF, 1 to 8; 1 is as stored
}

// lookIntoJPEG reads the segments before the picture. What it cannot read it leaves at "as stored".
func lookIntoJPEG(r io.Reader) jpegLook {
	look := jpegLook{orientation: 1}
	in := bufio.NewReader(r)
	if _, err := in.Discard(2); err != nil {
		return look
	}
	for {
		marker, size, err := segment(in)
		if err != nil || marker == 0xDA { // the picture begins
			return look
		}
		switch {
		case marker == 0xC2:
			look.progressive = true
			return look // EXIF stands before it
		case marker == 0xE1:
			data := make([]byte, size) // two bytes of length: at most 64 KiB
			if _, err := io.ReadFull(in, data); err != nil {
				return look
			}
			if o := exifOrientation(data); o != 0 {
				look.orientation = o
			}
		default:
			if _, err := in.Discard(size); err != nil {
				return look
			}
		}
	}
}

// segment reads the head of the next segment.
func segment(in *bufio.Reader) (marker byte, size int, err error) {
	for marker == 0 || marker == 0xFF {
		before := marker
		if marker, err = in.ReadByte(); err != nil {
			return 0, 0, err
		}
		if before == 0 && marker != 0xFF {
			marker = 0 // decoders skip what is no marker, too
		}
	}
	if marker >= 0xD0 && marker <= 0xD9 {
		return marker, 0, nil
	}
	var length [2]byte
	if _, err := io.ReadFull(in, length[:]); err != nil {
		return 0, 0, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n < 2 {
		return 0, 0, io.ErrUnexpectedEOF
	}
	return marker, n - 2, nil
}

// exifOrientation finds the orientation in an APP1 segment, 0 if there is none.
func exifOrientation(data []byte) int {
	if len(data) < 14 || string(data[:6]) != "Exif\x00\x00" {
		return 0
	}
	data = data[6:]
	var order binary.ByteOrder = binary.BigEndian
	if data[0] == 'I' {
		order = binary.LittleEndian
	}
	at := int(order.Uint32(data[4:8]))
	if at < 8 || at+2 > len(data) {
		return 0
	}
	entries := int(order.Uint16(data[at:]))
	at += 2
	for ; entries > 0 && at+12 <= len(data); entries, at = entries-1, at+12 {
		if order.Uint16(data[at:]) == 0x0112 {
			if o := int(order.Uint16(data[at+8:])); o >= 1 && o <= 8 {
				return o
			}
			return 0
		}
	}
	return 0
}

// unturned is where a part of the image as it is seen lies in the image as it is stored, which is w by h large.
func unturned(r image.Rectangle, orientation, w, h int) image.Rectangle {
	corner := func(x, y int) image.Point { // of pixel corners: 0 to w, 0 to h
		switch orientation {
		case 2:
			return image.Pt(w-x, y)
		case 3:
			return image.Pt(w-x, h-y)
		case 4:
			return image.Pt(x, h-y)
		case 5:
			return image.Pt(y, x)
		case 6:
			return image.Pt(y, h-x)
		case 7:
			return image.Pt(w-y, h-x)
		case 8:
			return image.Pt(w-y, x)
		}
		return image.Pt(x, y)
	}
	a, b := corner(r.Min.X, r.Min.Y), corner(r.Max.X, r.Max.Y)
	return image.Rect(a.X, a.Y, b.X, b.Y) // puts them in order
}

// turned is a small image as it is to be seen.
func turned(img *image.RGBA, orientation int) *image.RGBA {
	if orientation == 1 {
		return img
	}
	w, h := img.Bounds().Dx(), img.Bounds().Dy()
	size := image.Pt(w, h)
	if orientation > 4 {
		size = image.Pt(h, w)
	}
	out := image.NewRGBA(image.Rectangle{Max: size})
	for y := range size.Y {
		for x := range size.X {
			from := unturned(image.Rect(x, y, x+1, y+1), orientation, w, h).Min
			out.SetRGBA(x, y, img.RGBAAt(from.X, from.Y))
		}
	}
	return out
}
