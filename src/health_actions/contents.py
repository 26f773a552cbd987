"""What the report shows of each study, in this order, and on which page."""

from typing import NamedTuple


class Item(NamedTuple):
    """One table or figure of a study.

    Args:
        file: its name in `reports/<study>/tables` or `figures`.
        title: of the paper where it is one of the paper's.
        page: where it is shown: "key" (index, before the tables), "tables" (index), or the study's page "charts",
            "audit" or "structures".
        text: what one sees.
    """

    file: str
    title: str
    page: str
    text: str


class Study(NamedTuple):
    """One study as the report shows it.

    Args:
        name: of its folders.
        title, question: of its chapter.
        annotations: name of its annotation notebook.
        best: table, its column of names, its column of accuracies: the row that is best by validation is told first.
        contents: its tables and figures.
        reasons: why its numbers may differ from the paper's: (when, text); when: "always", "synthetic" (clips that this
            project rendered are among the data) or "laptop" (the profile).
    """

    name: str
    title: str
    question: str
    annotations: str
    best: tuple[str, str, str]
    contents: list[Item]
    reasons: list[tuple[str, str]]


HANDWASH_CONTENTS = [
    Item("figure_1_classes.png", "Figure 1: the classes", "key",
         "One frame of each class."),
    Item("figure_2_counts.svg", "Figure 2: clips per class and split", "audit",
         "First fold."),
    Item("table_1.csv", "Table 1: the architectures", "tables",
         "Published: accuracy on 77 validation clips of the real set. Reproduced: clip-level top-1 on the "
         "test clips of this run, with the number of clips and the 95 % interval. Weights: what the "
         "backbone started from, and whether it was trained. EfficientNet-Lite0 and the 3-D ResNet-18 are "
         "not the paper's."),
    Item("table_1_architectures.svg", "Table 1 as a chart", "key",
         "Test accuracy of each architecture with its 95 % interval, and the published validation "
         "accuracy."),
    Item("table_2.csv", "Table 2: batch size and learning rate", "tables",
         "The best architecture of Table 1 by validation (the paper: AlexNet). Published: validation "
         "accuracy. Validation is what a setting is chosen by, reproduced the accuracy on test clips."),
    Item("table_2_grid.svg", "Table 2 as heat maps", "charts",
         "Validation accuracy, published and reproduced."),
    Item("table_3.csv", "Table 3: the size of the frames", "tables",
         "Published: validation accuracy and minutes of training. Operations: thousand million "
         "multiply-adds for one clip. This machine's own times are not part of the report, since they "
         "differ from run to run: make times."),
    Item("table_3_sizes.svg", "Table 3 as a chart", "charts",
         "Test accuracy at each size with its 95 % interval."),
    Item("table_4.csv", "Table 4: augmentation", "tables",
         "Pixel change: mean change of a pixel, of 255, in a clip that is augmented. Mirrored clips get "
         "the label of the other hand. The published row of translation most likely had none: its code did "
         "not know the name."),
    Item("table_4_augmented_frames.png", "What each augmentation does", "charts",
         "Frames of one training clip, unchanged and changed."),
    Item("table_4_augmentation.svg", "Table 4 as a chart", "charts",
         "Test accuracy with each augmentation and its 95 % interval."),
    Item("table_5.csv", "Table 5: three streams against one", "tables",
         "Published: test accuracy, the three-stream one on other clips. Reproduced: all on the same test "
         "clips. The rows with a colon are the streams on their own."),
    Item("table_5_streams.png", "What the three streams see", "charts",
         "Frames, optical flow and oriented gradients of one clip."),
    Item("table_5_streams.svg", "Table 5 as a chart", "charts",
         "Test accuracy of each model and stream with its 95 % interval."),
    Item("figure_5_learning_curves.svg", "Figure 5: learning curves", "charts",
         "Loss and clip top-1 by epoch in training and validation; line: mean of the folds, band: all "
         "folds."),
    Item("figure_6_confusions.svg", "Figure 6: confusion matrix", "key",
         "Test clips of the architecture that is best by validation; rows are predicted classes, columns "
         "actual ones."),
    Item("figure_6_published.svg", "Figure 6 as published", "charts",
         "The paper's own test clips."),
    Item("classes.csv", "Precision and recall of each action", "tables",
         "The architecture that is best by validation, test clips."),
    Item("precision_recall.svg", "Precision and recall as a chart", "charts",
         "Of each action, as bars."),
    Item("figure_7.png", "Figure 7: a misclassified clip", "charts",
         "Above the clip, in the middle what the model looked at, below a clip of the class that it took "
         "it for."),
    Item("figure_8.png", "Figure 8: a misclassified clip", "charts",
         "As Figure 7."),
    Item("figure_9.png", "Figure 9: a misclassified clip", "charts",
         "As Figure 7."),
    Item("saliency.svg", "Does the model look at the hands?", "charts",
         "Share of the saliency that lies where something moves, against the share of the picture that "
         "moves."),
    Item("switches.csv", "What the mistakes of the paper's code cost", "tables",
         "One switched on at a time. Difference: to the base, in shares of 1; lowest and highest over the "
         "repeats."),
    Item("switches.svg", "The mistakes as a chart", "charts",
         "Difference to the base in points; lines: span of the repeats."),
    Item("protocols.csv", "Protocols side by side", "tables",
         "The same architecture when clips are split at random within classes (the paper), by performer "
         "and by scene."),
    Item("protocols.svg", "Protocols as a chart", "charts",
         "Each seed with its 95 % interval; bars: means over the seeds."),
    Item("reject.csv", "None of these", "tables",
         "How often the best model takes a clip of one of the actions for none of them (rejected), and a clip of "
         "something else for one of them (accepted), on clips and people that did not choose the threshold."),
    Item("reject.svg", "None of these, as a chart", "charts",
         "Share of the clips that are believed, by how far from the training clips they may be."),
    Item("export.csv", "The best model as an ONNX file", "tables",
         "The same clips asked of torch and of onnxruntime: largest difference of any probability, and clips that get "
         "the same class. What a clip takes with each is this machine's own: make times."),
    Item("mcnemar.csv", "The first two architectures", "tables",
         "McNemar's exact test of the two best of Table 1 by validation: clips that both, one or neither "
         "has right."),
    Item("audit.csv", "What the two sides of the split share", "audit",
         "Recordings, scenes and duplicates that test clips share with training or validation clips, fold "
         "by fold."),
    Item("duplicates.csv", "Clips that are the same", "audit",
         "Pairs of clips, by their bytes or by their frames; difference in grey values."),
    Item("left_out.csv", "Files that were left out", "audit",
         "With the reason; none where the table is empty."),
]

NTU_CONTENTS = [
    Item("actions.png", "The actions to recognise", "key",
         "Eight moments of one clip of each, the square in the middle."),
    Item("source_actions.png", "The actions to pretrain with", "charts",
         "Everyday actions of other performers."),
    Item("counts.svg", "Clips per class and subset", "audit",
         "First fold."),
    Item("audit.csv", "What the two sides of the split share", "audit",
         "Performers (recordings), cameras (scenes), movements filmed by another camera (takes) and equal "
         "clips that test clips share with training or validation clips, under the split in use and under "
         "others."),
    Item("figure_2_training_input.png", "Figure 2: training input", "charts",
         "Snapshots after each transform: cropped at a corner at one of five scales, resized, mirrored."),
    Item("figure_3_test_input.png", "Figure 3: test input", "charts",
         "Scaled, cropped in the centre; windows for video-level scores."),
    Item("figure_6_costs.svg", "Figure 6: what the networks cost", "structures",
         "Parameters and multiply-adds, published and counted here. The paper's own Figure 6 is not "
         "described in the material at hand; this chart stands in its place."),
    Item("costs.csv", "Costs of the networks", "tables",
         "Parameters for nine classes; million multiply-adds for 16 frames of 112 x 112 pixels; published "
         "clips per second."),
    Item("figure_7_c3d.svg", "Figure 7: C3D", "structures",
         "Its structure, drawn from the network itself."),
    Item("figure_8_resnet18.svg", "Figure 8: 3-D ResNet-18", "structures",
         "As Figure 7."),
    Item("figure_9_resnet50.svg", "Figure 9: 3-D ResNet-50", "structures",
         "As Figure 7."),
    Item("figure_10_resnet101.svg", "Figure 10: 3-D ResNet-101", "structures",
         "As Figure 7."),
    Item("figure_11_resnext101.svg", "Figure 11: 3-D ResNeXt-101", "structures",
         "As Figure 7."),
    Item("figure_12_mobilenetv2.svg", "Figure 12: 3-D MobileNetV2", "structures",
         "As Figure 7."),
    Item("figure_13_shufflenetv2.svg", "Figure 13: 3-D ShuffleNetV2", "structures",
         "As Figure 7."),
    Item("figure_14_squeezenet.svg", "Figure 14: 3-D SqueezeNet", "structures",
         "As Figure 7."),
    Item("figure_15_learning_curves.svg", "Figure 15: learning curves", "charts",
         "Validation clip top-1 by epoch, from both starts. The paper's own Figure 15 is not described in "
         "the material at hand; this chart stands in its place."),
    Item("figure_16_starts.svg", "Figure 16: from scratch and from pretrained weights", "key",
         "Clip-level top-1 on test clips with 95 % intervals."),
    Item("figure_16.csv", "Figure 16 as a table", "tables",
         "Clip-level scores are of the centre window of each clip, video-level ones are means over several "
         "windows. Validation is what models are chosen by."),
    Item("table_3.csv", "Table 3: top-1 and top-2", "tables",
         "Published: random split that shares performers, real clips, Kinetics-600 weights (C3D from "
         "scratch). Reproduced: this run's test clips, pretrained weights where there are any."),
    Item("figure_17_top1_top2.svg", "Figure 17: top-1 and top-2", "charts",
         "Table 3 as a chart."),
    Item("alerts.csv", "Actions that must not be missed", "tables",
         "Recall: of the clips that show the action, the share that is called so; with its number of clips "
         "and 95 % interval."),
    Item("table_4.csv", "Table 4: ResNet-101, each action", "tables",
         "Precision, recall and F1; difference and published_is tell of recall. The paper captions its Tables 4, 5 and "
         "6 all 'Resnext101'; its Section 6.1 and list of tables say ResNet-101, ResNeXt-101 and ResNet-50, which is "
         "followed here."),
    Item("figure_18_resnet101.svg", "Figure 18: ResNet-101, each action", "charts",
         "Table 4 as a chart."),
    Item("table_5.csv", "Table 5: ResNeXt-101, each action", "tables",
         "As Table 4."),
    Item("figure_19_resnext101.svg", "Figure 19: ResNeXt-101, each action", "charts",
         "Table 5 as a chart."),
    Item("table_6.csv", "Table 6: ResNet-50, each action", "tables",
         "As Table 4; captioned 'Resnext101' in the paper."),
    Item("figure_20_resnet50.svg", "Figure 20: ResNet-50, each action", "charts",
         "Table 6 as a chart."),
    Item("classes_best.csv", "Precision and recall of each action", "tables",
         "The model that is best by validation."),
    Item("confusions_best.svg", "Confusion matrix", "key",
         "Test clips of the model that is best by validation; rows are predicted classes, columns actual "
         "ones. The paper names the matrix among its metrics and does not show it."),
    Item("accuracy_costs.svg", "Accuracy against cost", "charts",
         "Top-1 against multiply-adds, published and reproduced."),
    Item("accuracy_costs.csv", "Accuracy against cost as a table", "tables",
         "Published speeds: clips per second."),
    Item("behaviour.csv", "Behaviour tests of the best model", "tables",
         "The share of clips on which the model behaves as it should, with their number and the 95 % "
         "interval: harmless changes leave its answer, plain clips are recognised, telling changes move it "
         "the right way."),
    Item("behaviour.svg", "Behaviour tests as a chart", "charts",
         "Shares with 95 % intervals."),
    Item("reject.csv", "None of these", "tables",
         "How often the best model takes a clip of one of the actions for none of them (rejected), and a clip of "
         "something else for one of them (accepted), on clips and people that did not choose the threshold."),
    Item("reject.svg", "None of these, as a chart", "charts",
         "Share of the clips that are believed, by how far from the training clips they may be."),
    Item("export.csv", "The best model as an ONNX file", "tables",
         "The same clips asked of torch and of onnxruntime: largest difference of any probability, and clips that get "
         "the same class. What a clip takes with each is this machine's own: make times."),
    Item("changes.png", "What the behaviour tests change", "charts",
         "One clip under each change."),
    Item("duplicates.csv", "Clips that are the same", "audit",
         "Pairs of clips, by their bytes or by their frames; difference in grey values."),
    Item("left_out.csv", "Files that were left out", "audit",
         "With the reason; none where the table is empty."),
]

STUDIES = [
    Study("handwash", "Study A: hand washing",
          "Which of twelve hand-wash actions does a clip show? A person who uploads the clips of one wash can then be "
          "told which actions are missing.",
          "02_handwash_annotations", ("table_1.csv", "architecture", "reproduced"), HANDWASH_CONTENTS,
          [("synthetic", "The clips are others: rendered hands at drawn sinks instead of the filmed set, and fewer."),
           ("always", "The paper reports validation clips that had also picked the epoch; reported here are test clips "
                      "that picked nothing."),
           ("always", "The paper split clips at random within classes, so that tested people were known; the "
                      "split named above decides what is tested here."),
           ("laptop", "Backbones whose ImageNet weights are not at hand (AlexNet, ResNet-50) are random and frozen: "
                      "they know nothing, and do not learn."),
           ("laptop", "Few epochs on small frames: networks that start from nothing (ConvLSTM, the custom CNN, the 3-D "
                      "ResNet-18) are far from having learned all they can.")]),
    Study("ntu", "Study B: medical actions",
          "Which of nine medical actions does a clip of a patient show? Falling and staggering must not be missed; "
          "headache, neck pain and chest pain differ by where a hand goes.",
          "12_ntu_annotations", ("figure_16.csv", "model", "clip_top1"), NTU_CONTENTS,
          [("synthetic", "The clips are others: rendered figures instead of NTU's filmed people, hundreds instead of "
                         "thousands."),
           ("always", "The paper split clips at random, so that tested performers were known; the split "
                      "named above decides what is tested here."),
           ("laptop", "Weights to start from were learned in minutes on a few everyday actions, not on Kinetics-600."),
           ("laptop", "Few epochs on 8 small frames: the deeper a network, the less of what it can do is reached.")]),
]
