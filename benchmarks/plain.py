"""The plain way, for comparison: study B as published PyTorch pipelines do it, one process and one picture at a time.

Same clips, same networks and weights, same augmentation; nothing of it is used by the studies.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import cv2
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional

from health_actions.data.transforms import CORNERS, SCALES, corner_box


def extract(videos: list[Path], output: Path, *, height: int, quality: int = 90) -> int:
    """Write every frame of videos as `<output>/<clip>/image_00001.jpg`, ... and their number as n_frames.

    Args:
        height: of the pictures, pixels; their width follows.
        quality: of the JPEG pictures, 1-95.

    Returns:
        Frames written.
    """
    written = 0
    for video in videos:
        folder = Path(output) / video.stem
        folder.mkdir(parents=True, exist_ok=True)
        capture, number = cv2.VideoCapture(str(video), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1]), 0
        while True:
            there, frame = capture.read()
            if not there:
                break
            number += 1
            width = round(frame.shape[1] * height / frame.shape[0])
            picture = cv2.cvtColor(cv2.resize(frame, (width, height)), cv2.COLOR_BGR2RGB)
            Image.fromarray(picture).save(folder / f"image_{number:05d}.jpg", quality=quality)
        capture.release()
        (folder / "n_frames").write_text(str(number))
        written += number
    return written


class ClipFolders(Dataset):
    """Folders of pictures as `extract` writes them; an item is (3, window, size, size) float32 and its class number.

    Args:
        folders, labels: of the clips; their class numbers.
        size: of the crops, pixels.
        window, stride: frames of an item, from one to the next.
        mean, std: per channel, of frames in 0-1.
        training: a random window, mirrored or not, cropped at a corner; else the centre of both.
    """

    def __init__(self, folders: list[Path], labels: list[int], *, size: int, window: int, stride: int,
                 mean: list[float], std: list[float], training: bool):
        self.folders, self.labels, self.size = folders, labels, size
        self.window, self.stride, self.mean, self.std, self.training = window, stride, mean, std, training

    def __len__(self) -> int:
        return len(self.folders)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        folder = self.folders[index]
        length = int((folder / "n_frames").read_text())
        free = max(0, length - self.window * self.stride)
        start = random.randrange(max(1, free)) if self.training else free // 2
        numbers = [(start + self.stride * step) % length for step in range(self.window)]
        pictures = []
        for number in numbers:
            with Image.open(folder / f"image_{number + 1:05d}.jpg") as picture:
                pictures.append(picture.convert("RGB"))
        flipped, scale, corner = random.random() < 0.5, random.choice(SCALES), random.choice(CORNERS)
        frames = []
        for picture in pictures:
            if self.training:
                if flipped:
                    picture = picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                picture = picture.crop(corner_box(*picture.size, scale, corner)).resize([self.size] * 2, Image.BILINEAR)
            else:
                picture = functional.resize(picture, self.size, antialias=True)
                picture = functional.center_crop(picture, [self.size] * 2)
            frames.append(functional.normalize(functional.to_tensor(picture), self.mean, self.std))
        return torch.stack(frames, dim=1), self.labels[index]


def build_plain_optimizer(network: nn.Module, *, learning_rate: float, momentum: float,
                          weight_decay: float) -> torch.optim.Optimizer:
    """SGD as torch has it by default."""
    return torch.optim.SGD(network.parameters(), learning_rate, momentum=momentum, weight_decay=weight_decay)


def train(network: nn.Module, optimizer: torch.optim.Optimizer,
          batches: DataLoader | list[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[float]:
    """One pass over batches of clips and labels; yields each batch's loss."""
    criterion = nn.CrossEntropyLoss()
    network.train()
    for clips, labels in batches:
        loss = criterion(network(clips), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield loss.item()


def predict(network: nn.Module, batches: DataLoader | list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    """Logits (clips, classes) of all batches."""
    network.eval()
    with torch.no_grad():
        return torch.cat([network(clips) for clips, _ in batches])
